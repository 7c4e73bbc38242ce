"""OAuth clients: the apps that sign people in by authorization code, and their redirect URIs."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import MISSING, AfterValidator, StringConstraints
from sqlmodel import JSON, Field, SQLModel

from app.models.base import Body, SortedName, described, utcnow
from app.models.types import UtcTime, line

CLIENT_ID = r"^[A-Za-z0-9._~-]{1,100}$"
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]-]+", re.ASCII)  # RFC 3986, without a fragment
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?", re.ASCII)
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?(?=[/?]|\Z)", re.ASCII)


def _redirect_uri(value: str) -> str:
    """A redirect URI (RFC 8252 sections 7.1 to 7.3): https, an app's own scheme, or http on the device itself."""
    scheme = value.partition(":")[0]
    if not _URI.fullmatch(value):
        raise ValueError("this is not an absolute URI in ASCII, without a fragment")
    if scheme == "http" and not _LOOPBACK.match(value):
        raise ValueError("http is for http://127.0.0.1 and http://[::1] only")
    if scheme == "https" and not _HOST.fullmatch(urlsplit(value).netloc):
        raise ValueError("this URI names no host, or more than a host and a port")
    if scheme not in {"http", "https"} and "." not in scheme:
        raise ValueError("an app's own scheme has a dot, such as com.example.app:/signed-in")
    return value


_URIS = "Where codes may be sent: compared exactly, except for the port of a loopback address."
_SOME_URIS = ["com.example.app:/signed-in"]
_field = described("Where a code may be sent.", "com.example.app:/", max_length=500)
RedirectUri = Annotated[str, _field, AfterValidator(_redirect_uri)]
RedirectUris = Annotated[list[RedirectUri], Field(min_length=1, max_length=20)]
ClientId = Annotated[str, StringConstraints(pattern=CLIENT_ID), described("The app's id.", "ledger-app")]
AppName = Annotated[str, *line(100, "Ledger for iPhone", "The app's name, as people see it.")]


class OAuthClientBase(SQLModel):
    name: AppName = Field(max_length=100)
    redirect_uris: list[str] = described(_URIS, _SOME_URIS, sa_type=JSON)


class OAuthClient(OAuthClientBase, table=True):
    """A public client (RFC 6749 section 2.1): it has no secret, which an app could not keep."""

    __tablename__ = "oauth_client"

    id: str = Field(primary_key=True, sa_type=SortedName)
    created_at: UtcTime = Field(default_factory=utcnow)

    def allows(self, redirect_uri: str) -> bool:
        """Whether a code may be sent there: compared exactly, except for the port on the loopback interface."""
        return _without_port(redirect_uri) in map(_without_port, self.redirect_uris)


def _without_port(uri: str) -> str:
    return _LOOPBACK.sub(r"\1", uri, count=1) if uri.startswith("http:") else uri


class OAuthClientCreate(Body, OAuthClientBase):
    id: ClientId
    redirect_uris: RedirectUris = described(_URIS, _SOME_URIS)


class OAuthClientUpdate(Body):
    name: AppName | MISSING = Field(default=MISSING)
    redirect_uris: RedirectUris | MISSING = described(_URIS, _SOME_URIS, default=MISSING)


class OAuthClientPublic(OAuthClientBase):
    id: str = described("The app's id.", "ledger-app")
    created_at: UtcTime = Field(description="When it was registered.")
