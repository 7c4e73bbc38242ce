"""The application with routes that only tests need: a slow read, a counter, a failure. Served like the real one."""

import time
from pathlib import Path

from anyio import to_thread
from sqlalchemy import text

from app.core.errors import NotFound
from app.dependencies import CurrentUser, SessionDep
from app.http.routing import Router
from app.main import create_api

router = Router(prefix="/test")


@router.get("/held")
def held(session: SessionDep, seconds: float = 2, until: Path | None = None) -> dict[str, bool]:
    """A read that holds its slot and its connection for `seconds`, or until this file exists."""
    session.connection().execute(text("SELECT 1"))
    if until is None:
        time.sleep(seconds)
    else:
        while not until.exists():
            time.sleep(0.01)
    return {"ok": True}


@router.get("/held/mine")
def held_by_me(_me: CurrentUser, session: SessionDep, until: Path | None = None) -> dict[str, bool]:
    """A read that holds a slot in a person's share until this file exists."""
    return held(session, 0, until)


@router.post("/number")
def add_one(session: SessionDep) -> dict[str, int]:
    """Read, think, write, in one transaction: this loses updates wherever isolation is only hoped for."""
    connection = session.connection()
    read = "SELECT value FROM number WHERE id = 1"
    lock = " FOR UPDATE" if connection.dialect.name == "postgresql" else ""
    before = connection.execute(text(read + lock)).scalar_one()
    connection.execute(text("UPDATE number SET value = :value WHERE id = 1"), {"value": before + 1})
    return {"value": before + 1}


@router.get("/number")
def read_number(session: SessionDep) -> dict[str, int]:
    return {"value": session.connection().execute(text("SELECT value FROM number WHERE id = 1")).scalar_one()}


@router.post("/number/refused")
def add_one_and_refuse(session: SessionDep) -> None:
    """A write that ends in an error, so nothing of it may remain."""
    add_one(session)
    raise NotFound


@router.get("/write")
def write_in_a_safe_method(session: SessionDep) -> None:
    """A write in a GET, which the database itself must refuse."""
    session.connection().execute(text("UPDATE number SET value = 0"))


@router.get("/broken")
def broken() -> None:
    raise RuntimeError("a secret that no client may see")


taken: list[object] = []


@router.post("/threads")
async def take_every_thread() -> int:
    """Leave no worker thread for anybody. Returns how many there were."""
    threads = to_thread.current_default_thread_limiter()
    while threads.available_tokens:
        taken.append(object())
        threads.acquire_on_behalf_of_nowait(taken[-1])
    return len(taken)


@router.delete("/threads")
async def give_every_thread_back() -> None:
    while taken:
        to_thread.current_default_thread_limiter().release_on_behalf_of(taken.pop())


app = create_api()
app.include_router(router)
