"""Terminal output of scripts that keep running; in production, JSON log lines."""

import logging

from app.core.settings import Settings

log = logging.getLogger("muster.start")


def say(settings: Settings, text: str) -> None:
    """Show a text. In production the caller has configured the log."""
    if settings.environment != "production":
        print(text, flush=True)
        return
    for line in text.splitlines():
        log.info("%s", " ".join(line.split()))
