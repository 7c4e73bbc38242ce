"""Cancels requests at 200 moments, from their first step to beyond their end, then counts slots and connections.

Run as a script. Prints one JSON line: how many requests were canceled, how many finished, and what is free afterward.
"""

import asyncio
import json
import sys
from typing import Any

from app.core.settings import get_settings
from app.main import create_api

STEP = 0.0002  # seconds: a request takes a few ms
MOMENTS = [*(number * STEP for number in range(100)), *[30.0] * 6]  # the last ones are never cut, however slow it is


async def main(token: str) -> None:
    app = create_api()
    async with app.router.lifespan_context(app):
        database = app.state.services.database
        counts = {"canceled": 0, "finished": 0}
        for seconds in MOMENTS:
            for method, path in (("GET", "/api/users/me/sessions"), ("PATCH", "/api/users/me")):
                canceled = await cancel_after(app, seconds, method, path, token)
                counts["canceled" if canceled else "finished"] += 1
        slots = get_settings().db_slots
        sides = {"read": database.read, "write": database.write}
        free = {name: side.slots.value for name, side in sides.items()}
        out = {name: side.engine.pool.checkedout() for name, side in sides.items()}
        report = {**counts, "slots": slots, "free": free, "checked_out": out}
        sys.stdout.write(json.dumps(report))


async def cancel_after(app: Any, seconds: float, method: str, path: str, token: str) -> bool:
    """Whether the request was still in progress after that many seconds, and was then canceled."""
    body = b'{"name": "Ada"}'
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "headers": [
            (b"host", b"localhost"),
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/json"),
        ],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(_message: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    task: asyncio.Future[None] = asyncio.ensure_future(app(scope, receive, send))
    await asyncio.wait([task], timeout=seconds)
    still_running = task.cancel()
    await asyncio.wait([task])
    return still_running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
