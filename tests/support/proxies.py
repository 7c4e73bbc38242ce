"""nginx and Caddy as deploy/ sets them up, in front of a served instance, with a certificate of the test's own."""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest

from tests.support.databases import ROOT
from tests.support.servers import STARTUP, Muster, free_port, wait_for

CLIENT = "127.0.0.9"  # an address of this machine that is not the proxy's


def _replaced(file: str, changes: dict[str, str]) -> str:
    text = (ROOT / file).read_text()
    for old, new in changes.items():
        assert old in text, f"{file} has no {old}"
        text = text.replace(old, new)
    return text


def _nginx(proxy: "Proxy", certificate: Path, upstream: int) -> list[str]:
    place = proxy.folder
    site = _replaced(
        "deploy/nginx/muster.conf",
        {
            "muster.example.com": "localhost",
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
            "listen [::]:80;": "",
            "listen [::]:443 ssl http2;": "",
            "listen 80;": f"listen 127.0.0.1:{proxy.http_port};",
            "listen 443 ssl": f"listen 127.0.0.1:{proxy.port} ssl",
            "/etc/letsencrypt/live/localhost/fullchain.pem": str(certificate),
            "/etc/letsencrypt/live/localhost/privkey.pem": str(certificate),
        },
    )
    paths = "".join(
        f"{name}_temp_path {place}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{site}}}\n"
    )
    return ["-e", f"{place}/log", "-c", f"{place}/nginx.conf"]


def _caddy(proxy: "Proxy", certificate: Path, upstream: int) -> list[str]:
    site = _replaced(
        "deploy/caddy/Caddyfile",
        {
            "muster.example.com {": f"localhost {{\n\ttls {certificate} {certificate}",
            "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        },
    )
    options = f"admin off\n\thttp_port {proxy.http_port}\n\thttps_port {proxy.port}\n\tdefault_bind 127.0.0.1"
    (proxy.folder / "Caddyfile").write_text(f"{{\n\t{options}\n\tstorage file_system {proxy.folder}\n}}\n\n{site}")
    return ["run", "--config", f"{proxy.folder}/Caddyfile", "--adapter", "caddyfile"]


PROXIES: dict[str, Callable[["Proxy", Path, int], list[str]]] = {"nginx": _nginx, "caddy": _caddy}


class Proxy:
    """A real proxy between a client with an address of its own and an instance."""

    def __init__(self, name: str, muster: Muster, certificate: Path) -> None:
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            pytest.skip(f"{name} is not installed")
        self.folder = muster.folder / name
        self.folder.mkdir(exist_ok=True)  # of one that served other tests of this module before
        self.http_port, self.port = free_port(), free_port()
        self.url = f"https://localhost:{self.port}"
        self.tls = ssl.create_default_context(cafile=certificate)
        self._command = [program, *PROXIES[name](self, certificate, muster.port)]
        transport = httpx.HTTPTransport(verify=self.tls, local_address=CLIENT)
        self.client = httpx.Client(base_url=self.url, transport=transport, timeout=STARTUP)

    def __enter__(self) -> Self:
        environment = {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
        with (self.folder / "output").open("wb") as log:
            self._process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=log)
        wait_for(self._answers, what=f"a proxy that answers, log: {self.folder}")
        return self

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "output").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(STARTUP)
