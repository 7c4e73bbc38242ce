"""What scripts that keep running say: in the terminal, or in production as lines of the log, which are JSON."""

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
