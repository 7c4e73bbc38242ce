"""Logging: one line for each record, readable in development and JSON in production.

Tokens, passwords and e-mail addresses are never logged.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app.core.settings import Settings

request_id: ContextVar[str] = ContextVar("request_id", default="-")
# The IP address and the account that a request comes from, for the audit log; the account also for its share of the
# database's slots. Scripts and jobs have neither.
client_host: ContextVar[str] = ContextVar("client_host", default="")
actor: ContextVar[UUID | None] = ContextVar("actor", default=None)

_security = logging.getLogger("muster.security")


def security_event(event: str, **fields: Any) -> None:
    """Log a security event, with ids and without any text from a client. Events that concern an account are recorded
    by app/models/audit.py, which calls this."""
    texts = {name: str(field) for name, field in fields.items() if field is not None}
    line = " ".join([event, *(f"{name}={text}" for name, text in texts.items())])
    _security.warning("%s", line, extra={"fields": texts})


class _Json(logging.Formatter):
    """One JSON object per record; the record's `fields` become members of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "request_id": request_id.get(),
            "message": record.getMessage(),
            **record.__dict__.get("fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Readable(logging.Formatter):
    """Readable lines. Further lines, such as a traceback, are indented, so that no text can imitate another record.

    Control characters, which could move a cursor or color text, are escaped.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        lines = super().format(record).replace("\n", "\n    ")
        return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in lines)


def configure_logging(settings: Settings) -> None:
    """Send our records, uvicorn's, and those that have no other handler to stderr, with the id of their request."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    handler = logging.StreamHandler()
    readable = _Readable("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")
    handler.setFormatter(_Json() if settings.environment == "production" else readable)
    logging.lastResort = handler
    for name in ("muster", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    logging.getLogger("muster").setLevel(logging.INFO if settings.environment != "test" else logging.WARNING)
