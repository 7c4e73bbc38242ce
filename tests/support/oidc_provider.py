"""A real OpenID Connect provider for the tests (npm `oidc-provider`, certified), and people who sign in there."""

import subprocess
from base64 import urlsafe_b64encode
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx

from app.core.scopes import SCOPES
from scripts.generators.tools import NODE
from tests.support.nodejs import installed
from tests.support.servers import NO_TLS, STARTUP, Tokens, free_port, wait_for
from tests.support.startable import Startable

CLIENT, STRANGER, PHONE = "muster-pages", "stranger", "phone"  # two confidential clients (RS256), a public one (ES256)
AUDIENCE = "https://muster.example"  # the resource to ask for (RFC 8707); its tokens' `aud` is "muster"


def secret_of(client: str) -> str:
    return f"the-secret-of-{client}"


class OidcProvider(Startable):
    """Keeps nothing: after a restart nobody is signed in there. The keys stay, until `rotate_keys`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.issuer = f"http://127.0.0.1:{self._port}"
        self.rotate_keys()

    def close(self) -> None:
        self.client.close()

    def start(self) -> None:
        command: list[str | Path] = [NODE, "provider.mjs", str(self._port), self._keys, " ".join(SCOPES)]
        with (self._folder / f"provider-{self._port}.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=installed(), stdin=subprocess.PIPE, stdout=log, stderr=log)
        wait_for(self._is_up, what=f"the provider, log: {log.name}")

    def stop(self) -> None:
        """Stop at once; a second call does nothing."""
        self._process.kill()
        self._process.communicate(timeout=STARTUP)

    def rotate_keys(self) -> None:
        """Sign with other keys from the next start on."""
        self._keys = self._folder / f"provider-{uuid4().hex}.json"

    @cached_property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.issuer, timeout=STARTUP, verify=NO_TLS)

    def discovery(self) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get("/.well-known/openid-configuration").raise_for_status().json()
        return document

    def sign_in(self, name: str, scope: str = "openid email profile me", *, client: str = PHONE) -> Tokens:
        """The tokens of `name`, by code and PKCE, for Muster."""
        redirect_uri, verifier = "http://127.0.0.1/callback", uuid4().hex * 2
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
        asked = {"client_id": client, "response_type": "code", "scope": scope, "redirect_uri": redirect_uri}
        asked |= {"code_challenge": challenge, "code_challenge_method": "S256", "resource": AUDIENCE}
        returned = self.visit(str(httpx.URL(f"{self.issuer}/auth", params=asked)), name)
        code = parse_qs(urlsplit(returned).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        return self.token(client, **form, code_verifier=verifier, resource=AUDIENCE)

    def refresh(self, tokens: Tokens, *, client: str = PHONE) -> Tokens:
        form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh}
        return self.token(client, **form, resource=AUDIENCE)

    def token(self, client: str, **form: str) -> Tokens:
        if client == PHONE:
            answer = self.client.post("/token", data={**form, "client_id": client})
        else:
            answer = self.client.post("/token", data=form, auth=(client, secret_of(client)))
        assert answer.status_code == 200, answer.text
        return Tokens(answer.json())

    def visit(self, url: str, name: str | None) -> str:
        """Open `url`, an authorization request, as a person's browser does, and sign in as `name`, or refuse. Returns
        the address that the provider sends the browser back to, which is not opened."""
        with httpx.Client(timeout=STARTUP, verify=NO_TLS) as browser:
            answer = browser.get(url)
            answer = browser.get(self._next(answer))
            answer = browser.post(answer.url, data={"name": name} if name else {"refuse": "yes"})
            return self._next(browser.get(self._next(answer)))

    @staticmethod
    def _next(answer: httpx.Response) -> str:
        assert answer.is_redirect, answer.text
        return str(answer.url.join(answer.headers["location"]))

    def _is_up(self) -> bool:
        assert self._process.poll() is None, "the provider ended"
        try:
            return self.client.get("/.well-known/openid-configuration").status_code == 200
        except httpx.TransportError:
            return False
