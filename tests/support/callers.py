"""What the tests take from the environment of whoever runs them."""

import os
from pathlib import Path

from app.core.settings import Settings
from tests.support.databases import SECRET_KEY

# They change what uvicorn, Celery, Python and the libraries of PostgreSQL do.
_FOREIGN = ("CELERY_", "FORWARDED_ALLOW_IPS", "LANGUAGE", "LC_", "PG", "PYTHON", "UVICORN_", "WEB_CONCURRENCY")
_HERE = "127.0.0.1,::1,localhost"


def forget_the_caller() -> None:
    """Remove the caller's settings, and whatever else changes what the tests see, from the environment of this process
    and those that it starts. What reaches a network, such as a proxy, or TEST_DATABASE_URL and its password, stays."""
    kept = "PG" if "TEST_DATABASE_URL" in os.environ else None
    for name in list(os.environ):
        foreign = name.startswith(_FOREIGN) and not (kept and name.startswith(kept))
        if foreign or name.lower() in Settings.model_fields:
            del os.environ[name]
    Settings.model_config["env_file"] = os.devnull
    os.environ["PYTHONPATH"] = str(Path(__file__).with_name("startup"))  # the same for all that are started
    os.environ["SECRET_KEYS"] = SECRET_KEY  # otherwise they would make one in data/
    os.environ["LANG"] = "C.UTF-8"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), _HERE]))
