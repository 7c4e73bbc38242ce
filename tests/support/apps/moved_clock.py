"""The service on a machine whose clock jumps: the file MOVED_CLOCK says by how many seconds it is wrong."""

import os
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

from app.models import base

_FILE = Path(os.environ["MOVED_CLOCK"])
_time = time.time


def _wrong_by() -> float:
    return float(_FILE.read_text())


class MovedDatetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(seconds=_wrong_by())


vars(base)["datetime"] = MovedDatetime
time.time = lambda: _time() + _wrong_by()

from app.main import app  # noqa: E402, F401  # it reads the clock from here on
