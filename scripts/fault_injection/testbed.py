"""The instances on which the scenarios run, and how long each lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases import fresh_database
from tests.support.servers import Muster


@dataclass(frozen=True)
class Testbed:
    folder: Path
    postgres: str
    clients: int = 48
    kills: int = 10
    seconds: float = 10
    minutes: float = 3

    @contextmanager
    def muster(self, kind: str, *, app: str | None = None, **settings: str) -> Iterator[Muster]:
        """An instance on a database that nobody else uses."""
        with (
            fresh_database(kind, self.folder, self.postgres) as url,
            Muster(url, self.folder, app=app, **settings) as served,
        ):
            yield served
