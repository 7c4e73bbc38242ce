"""The imports of the process that instances are forked from: libraries, and the parts of app/ that read no setting.

Modules that read a setting when they are imported (app/http, the routers, the pages) are imported by each instance.
"""

import gc
from importlib import import_module
from pathlib import Path

from app.accounts.passwords import hash_password
from app.core.settings import get_settings

LIBRARIES = [
    "alembic.command",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "dogpile.cache",
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
# The packages that app/http and the routers stand on.
PACKAGES = ["core", "models", "oauth2", "accounts", "ledger", "email", "oidc", "chat", "jobs"]


def modules_of(package: str) -> list[str]:
    folder = Path(__file__).parents[2] / "app" / package
    return [f"app.{package}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]


for name in [*LIBRARIES, *(module for package in PACKAGES for module in modules_of(package))]:
    import_module(name)
hash_password("")  # libpass takes long for its first hash; in a thread, a fork could inherit its locks
if get_settings.cache_info().currsize:
    raise RuntimeError("a preloaded module has read the settings: every instance would be given those of this process")
gc.collect()
gc.freeze()  # each instance walks its own objects when it starts, not these
