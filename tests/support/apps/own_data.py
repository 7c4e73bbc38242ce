"""The service whose folder of backups is in another folder than the project's data/: in the one that OWN_DATA names."""

import os
from pathlib import Path

from app.routers import system

vars(system)["DATA"] = Path(os.environ["OWN_DATA"])

from app.main import app  # noqa: E402, F401  # after that
