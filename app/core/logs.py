"""What is logged, and how: one line a record, readable in development and JSON in production.

Tokens, passwords and e-mail addresses are never given to a logger.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from app.core.settings import Settings

request_id: ContextVar[str] = ContextVar("request_id", default="-")

_security = logging.getLogger("muster.security")


def security_event(event: str, **fields: Any) -> None:
    """What whoever watches over accounts wants to see: a line of its own, with ids in it and no words of a client."""
    told = {name: str(field) for name, field in fields.items()}
    _security.warning(
        "%s%s", event, "".join(f" {name}={field}" for name, field in told.items()), extra={"fields": told}
    )


class _RequestIdFilter(logging.Filter):
    """Gives every log record the id of its request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _Json(logging.Formatter):
    """One object a line; what a record carries in `fields` are members of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": record.__dict__["request_id"],
            "message": record.getMessage(),
            **record.__dict__.get("fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Readable(logging.Formatter):
    """A line for people. What follows it, such as a traceback, is indented: no word in it passes for another record.
    What would move a cursor, colour or turn text around is spelled out."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).replace("\n", "\n    ")
        return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in lines)


def configure_logging(settings: Settings) -> None:
    """All goes to stderr, each line with the id of its request: ours, uvicorn's, and what no other handler takes."""
    handler = logging.StreamHandler()
    handler.addFilter(_RequestIdFilter())
    readable = _Readable("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")
    handler.setFormatter(_Json() if settings.environment == "production" else readable)
    logging.lastResort = handler
    for name in ("muster", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    logging.getLogger("muster").setLevel(logging.INFO if settings.environment != "test" else logging.WARNING)
