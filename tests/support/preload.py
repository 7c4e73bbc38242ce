"""The imports of the process that instances are forked from: libraries, and all of app/ but app/main.py.

Some modules read settings when they are imported, as the routers read their limits. They are imported with the usual
settings of the tests; an instance whose settings differ in what they read imports them again.
"""

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from app.accounts.passwords import hash_password
from app.core.settings import Settings, get_settings
from tests.support.processes import SETTINGS

LIBRARIES = [
    "alembic.command",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "fastapi",
    "jinja2",
    "jose.jws",
    "kombu.transport.redis",
    "limits.storage",
    "passlib.handlers.argon2",
    "psycopg",
    "pydantic.v1",  # FastAPI asks whether a model is one of its
    "pydantic_settings",
    "slowapi",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlmodel",
    "uvicorn.protocols.http.auto",
    "zxcvbn",
]
# The packages that read no setting, and those that depend on them.
PACKAGES = ["core", "models", "oauth2", "accounts", "ledger", "email", "oidc", "chat", "jobs"]
READERS = ["http", "routers", "pages"]


def adopt_settings() -> None:
    """Give the preloaded modules the settings of this fork, which has an environment of its own by now."""
    get_settings.cache_clear()
    try:
        own = get_settings()
    except SystemExit:
        return  # the instance itself says what is wrong with them
    if any(getattr(own, name) != getattr(_preloaded, name) for name in _read):
        for name in _readers:
            del sys.modules[name]
    vars(_preloaded).update(vars(own))


def import_all(packages: list[str]) -> set[str]:
    """Import the modules of these packages of app/. Returns the names of all modules of app/ that this imports."""
    before, app = set(sys.modules), Path(__file__).parents[2] / "app"
    for package in packages:
        for path in sorted((app / package).glob("[!_]*.py")):
            import_module(f"app.{package}.{path.stem}")
    return {name for name in set(sys.modules) - before if name.startswith("app.")}


def note(settings: Settings, name: str) -> Any:
    if name in Settings.model_fields:
        _read.add(name)
    return object.__getattribute__(settings, name)


gc.disable()  # what is imported is never garbage
for name in LIBRARIES:
    import_module(name)
import_all(PACKAGES)
if get_settings.cache_info().currsize:
    raise RuntimeError(f"a module of {PACKAGES} has read the settings, and would keep those of this process")
_read: set[str] = set()
with patch.dict(os.environ, SETTINGS):
    _preloaded = get_settings()
    with patch.object(Settings, "__getattribute__", note):
        _readers = import_all(READERS)
hash_password("")  # libpass takes long for its first hash; in a thread, a fork could inherit its locks
gc.collect()
gc.freeze()  # each instance walks its own objects when it starts, not these
gc.enable()
