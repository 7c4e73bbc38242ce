"""Cancels a request after each possible number of event loop steps, then counts slots and connections. Run as a script.

Prints one JSON line: how many requests were cancelled, how many finished, and what is free afterwards.
"""

import asyncio
import json
import sys
from typing import Any

from app.main import create_app
from app.settings import get_settings


async def main(token: str) -> None:
    app = create_app()
    async with app.router.lifespan_context(app):
        database = app.state.parts.database
        counts = {"cancelled": 0, "finished": 0}
        for method, path in (("GET", "/api/users/me"), ("PATCH", "/api/users/me")):
            steps = 0
            while await cancelled_after(app, steps, method, path, token):
                counts["cancelled"] += 1
                steps += 1
            counts["finished"] += 1
        slots = get_settings().db_slots
        sides = {"read": database.read, "write": database.write}
        free = {name: side.slots.value for name, side in sides.items()}
        out = {name: side.engine.pool.checkedout() for name, side in sides.items()}
        print(json.dumps({**counts, "slots": slots, "free": free, "checked_out": out}))


async def cancelled_after(app: Any, steps: int, method: str, path: str, token: str) -> bool:
    """Whether the request was still under way after so many steps of the loop, and was cancelled then."""
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
        "headers": [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        await asyncio.sleep(0)

    task = asyncio.ensure_future(app(scope, receive, send))
    for _ in range(steps):
        await asyncio.sleep(0.0002)  # long enough for a thread to make its step, short enough to fall between two
        if task.done():
            await task
            return False
    task.cancel()
    await asyncio.wait([task])
    return True


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
