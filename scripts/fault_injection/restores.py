"""A backup under load, and going back to it."""

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from sqlmodel import Session, func, select

from app.models.operation import Operation
from scripts.fault_injection.crowd import OPERATION, Crowd, Outcome
from scripts.fault_injection.testbed import Testbed
from scripts.phone import Phone
from tests.support.commands import run
from tests.support.servers import Muster


def restore(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """A backup while everybody writes; later the service goes back to it, and the phones go on from there"""
    with testbed.muster(kind) as muster:
        crowd, file = Crowd(muster, testbed.folder, testbed.clients), testbed.folder / f"backup-{kind}"
        with crowd.traffic(testbed.seconds):
            before = crowd.acknowledged()
            _command("backup", file, muster)
        crowd.sync_all()
        after = crowd.acknowledged()
        muster.stop()
        _command("restore", file, muster, "--force")
        muster.start()
        crowd.forget()
        kept = crowd.acknowledged()
        troubles = _edit_what_was_lost(crowd, testbed.folder)
        with crowd.traffic(testbed.seconds / 2):
            pass
        figures = f"{len(before)} before the backup began, {len(kept)} in it, {len(after)} before the restore"
        outcome = crowd.outcome(f"backup and restore, {kind}", figures, 404, 410)
        outcome.lost += sum(kept.get(figi, 0) < quantity for figi, quantity in before.items())
        outcome.troubles += troubles
        yield outcome


def _command(name: str, file: Path, muster: Muster, *options: str) -> None:
    done = run(name, file, *options, DATABASE_URL=muster.database_url)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr}")


def _edit_what_was_lost(crowd: Crowd, folder: Path) -> list[str]:
    """A phone that was offline over the restore edits an operation that the backup has not. Its id may be another
    operation's by then, which a tablet of the same person has recorded."""
    with Session(crowd.muster.engine) as session:
        newest = session.exec(select(func.max(Operation.id))).one() or 0
    owners = {row: client for client in crowd.clients for row in client.phone.copy if row > newest}
    if not owners:
        return ["every operation was in the backup: use more --seconds"]
    lost = min(owners)
    client = owners[lost]
    quantity = client.phone.copy[lost][
        "quantity"
    ]  # the other operation's too, which makes it look like an unchanged one
    client.phone.edit(lost, quantity="99")
    with closing(Phone(crowd.muster.url, folder / f"tablet-{lost}.db")) as tablet:
        tablet.sign_in(client.account.email, client.account.password)
        for number in range(lost - newest):
            tablet.add(**OPERATION, figi=f"tablet-{number}", quantity=quantity)
        tablet.sync()
        client.deliver()
        tablet.sync()
        client.acknowledged = {row["figi"]: Decimal(row["quantity"]) for row in tablet.copy.values()}
    for write in client.phone.refused:
        client.phone.dismiss(write)
    hit = [figi for figi, quantity in client.acknowledged.items() if quantity == 99]
    return [f"the edit of a lost operation landed on {figi}" for figi in hit]
