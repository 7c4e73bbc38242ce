"""The service, with its backups in the folder that OWN_DATA names instead of the project's data/."""

import os
from pathlib import Path

from app.routers import system

vars(system)["DATA"] = Path(os.environ["OWN_DATA"])

from app.main import app  # noqa: E402, F401  # only once DATA is set
