"""A small identity provider whose tokens look like Keycloak's: a real HTTP server, with keys of the test's own, that
can be stopped, slowed and asked how often it was asked."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as new_ec_key
from jose import jwk, jws

from tests.support.bearer_tokens import present
from tests.support.rsa_keys import rsa_key
from tests.support.servers import Muster, free_port
from tests.support.startable import Startable

PATHS = {"/.well-known/openid-configuration": "discovery", "/certs": "jwks", "/userinfo": "userinfo", "/token": "token"}
SCOPE = "openid email profile me jobs users:read"
_names = cycle(["first", "second", "third", "fourth"])  # of RSA keys, which take long to make: no test needs more


class SigningKey:
    """One key of a realm, RS256 or ES256."""

    def __init__(self, algorithm: str, *, bits: int = 2048, name: str | None = None) -> None:
        self.id, self.algorithm = uuid4().hex, algorithm
        self.private = rsa_key(name or next(_names), bits) if algorithm == "RS256" else new_ec_key(SECP256R1())

    @property
    def public(self) -> dict[str, Any]:
        described = jwk.construct(self.private.public_key(), self.algorithm).to_dict()
        return {**described, "kid": self.id, "use": "sig", "alg": self.algorithm}

    def sign(self, payload: dict[str, Any], **header: Any) -> str:
        members = present({"typ": "JWT", "kid": self.id, **header})
        key = jwk.construct(self.private, self.algorithm)
        return str(jws.sign(payload, key, headers=members, algorithm=self.algorithm))


class Keycloak(Startable):
    """Serves at `issuer`; `people` are what userinfo says, by subject."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys) or [SigningKey("RS256", name="a realm's own"), SigningKey("ES256")]
        self.port = free_port()
        self.host = f"http://127.0.0.1:{self.port}"
        self.issuer = f"{self.host}/realms/muster"
        self.asked: Counter[str] = Counter()
        self.people: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}  # instead of the usual ones: a document, bytes or a status
        self.forms: list[dict[str, list[str]]] = []  # what was posted, and with which credentials
        self.credentials: list[str | None] = []
        self.go = Event()
        self.go.set()

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """A block in which it takes questions and answers none."""
        self.go.clear()
        try:
            yield
        finally:
            self.go.set()

    def answer(self, what: str, token: str) -> Any:
        if what in self.answers:
            return self.answers[what]
        if what == "jwks":
            return {"keys": [key.public for key in self.keys]}
        if what == "userinfo":
            return self.people.get(json.loads(jws.get_unverified_claims(token))["sub"], 401)
        ends = {"jwks_uri": "certs", "userinfo_endpoint": "userinfo", "token_endpoint": "token"}
        ends["authorization_endpoint"] = "auth?kc=1"  # nothing of ours looks at it: a browser goes there
        return {"issuer": self.issuer, **{name: f"{self.issuer}/{path}" for name, path in ends.items()}}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """An access token of Keycloak 26, as its demo realm makes it."""
        now, subject = int(time.time()), str(uuid4())
        claims = {
            "exp": now + 600,
            "iat": now,
            "auth_time": now,
            "jti": f"onrtac:{uuid4()}",
            "iss": self.issuer,
            "aud": ["muster", "account"],
            "sub": subject,
            "typ": "Bearer",
            "azp": "muster-app",
            "sid": str(uuid4()),
            "acr": "1",
            "realm_access": {"roles": ["muster-user", "offline_access"]},
            "scope": SCOPE,
            "email_verified": True,
            "name": "Ada Demo",
            "preferred_username": "ada",
            "email": f"{subject}@example.com",
            **changes,
        }
        return present(claims)

    def token(self, *, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return (key or self.keys[0]).sign(self.claims(**changes), **(header or {}))


def _handler(keycloak: Keycloak) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            what = PATHS.get(self.path.removeprefix("/realms/muster"), "nothing")
            keycloak.asked[what] += 1
            keycloak.go.wait(60)
            answer = keycloak.answer(what, self.headers.get("Authorization", "").removeprefix("Bearer "))
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            if answer == 302:
                self.send_header("Location", f"{keycloak.issuer}/certs")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # the client has disconnected
                self.wfile.write(body)

        def do_POST(self) -> None:
            keycloak.forms.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            keycloak.credentials.append(self.headers.get("Authorization"))
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    return Handler


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def use(muster: Muster, token: str) -> httpx.Response:
    """The response to a request with a token of the provider."""
    return muster.client.get("/api/users/me", headers=bearer(token))
