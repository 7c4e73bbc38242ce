"""Base class of test servers: started and stopped explicitly, or running for the length of a `with` block."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Startable(ABC):
    @abstractmethod
    def start(self) -> None:
        """Start, and return once the server answers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop; `start` may be called again."""

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """A block in which it is stopped. It runs again afterward, whatever happened: others may share it."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def close(self) -> None:  # noqa: B027  # not every server has something
        """Close what remains open after the last stop."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # a server that does not start leaves nothing open either
            self.stop()
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.close()
