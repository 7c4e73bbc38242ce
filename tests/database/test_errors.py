"""Database errors as the client sees them."""

import os
import shutil
import subprocess
from contextlib import suppress
from errno import ENOENT, ENOSPC
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import NullPool
from sqlmodel import Session

from app.core.dialects import as_app_error, make_engine
from app.core.errors import Conflict, Unavailable
from app.core.settings import get_settings
from app.models.user import Role
from tests.support.disks import mounted, small_disk
from tests.support.ledgers import OPERATION
from tests.support.servers import Muster


def test_changing_a_row_that_was_deleted_meanwhile_is_a_conflict(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with Session(engine) as session:
        session.add(role := Role(name="guest", scopes=["me"]))
        session.commit()
        session.refresh(role)
        with Session(engine) as other:
            session.rollback()
            other.delete(other.get_one(Role, role.id))
            other.commit()
        role.scopes = ["jobs"]
        session.add(role)
        with pytest.raises(StaleDataError) as raised:
            session.flush()
    assert isinstance(as_app_error(raised.value), Conflict)


@pytest.mark.slow
def test_a_full_disk_is_a_503_and_fails_readiness(folder: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        shutil.copy(folder / "template.db", disk / "muster.db")
        with Muster(f"sqlite:///{disk}/muster.db", folder) as muster:
            phone = muster.new_account().sign_in()

            def write() -> httpx.Response:
                return muster.client.post("/api/operations", json=OPERATION, headers=phone.bearer)

            assert write().status_code == 201
            with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            refused = next(answer for answer in iter(write, None) if answer.status_code != 201)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert muster.client.get("/health/ready").status_code == 503
            assert muster.me(phone).status_code == 200
            (disk / "filler").unlink()
            assert write().status_code == 201
            assert muster.client.get("/health/ready").status_code == 200
            assert "ticket" not in muster.log


@pytest.mark.slow
def test_a_disk_that_the_kernel_stopped_after_an_error_fails_readiness(folder: Path, tmp_path: Path) -> None:
    """The disk still counts as mounted for writing, and what is in memory can still be read."""
    image = tmp_path / "image"
    image.write_bytes(bytes(16 * 1024 * 1024))
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip("mkfs.ext4 is not installed")
    subprocess.run([mkfs, "-q", str(image)], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        shutil.copy(folder / "template.db", disk / "muster.db")
        with Muster(f"sqlite:///{disk}/muster.db", folder) as muster:
            subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True)
            ready = muster.client.get("/health/ready")
            assert (ready.status_code, ready.headers["retry-after"]) == (503, "10")


def test_a_full_sqlite_database_is_a_temporary_error(tmp_path: Path) -> None:
    engine = make_engine(get_settings().model_copy(update={"database_url": f"sqlite:///{tmp_path}/small.db"}))
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE first (x)")
        connection.exec_driver_sql("PRAGMA max_page_count=1")
        with pytest.raises(OperationalError) as raised:
            connection.exec_driver_sql("CREATE TABLE second (x)")
        connection.exec_driver_sql("PRAGMA query_only=ON")
        with pytest.raises(Unavailable):
            connection.exec_driver_sql("CREATE TABLE third (x)")
    engine.dispose()
    assert isinstance(as_app_error(raised.value), Unavailable)


def test_a_full_disk_of_the_service_itself_is_a_temporary_error() -> None:
    assert isinstance(as_app_error(OSError(ENOSPC, "No space left on device")), Unavailable)
    assert as_app_error(FileNotFoundError(ENOENT, "No such file")) is None
