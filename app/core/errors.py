"""The errors of the API, one class per problem type (RFC 9457). app/http/error_handlers.py turns them into responses.

A class's name is its problem type, and its docstring is the sentence that the client receives as `detail`.
Errors that only one resource raises may be in its router, as in app/routers/heroes.py.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

Value = TypeVar("Value")

CHALLENGE = 'Bearer realm="muster"'  # RFC 6750 section 3


class AppError(Exception):
    """An error that is sent to the client. The keywords of a class define its status, its title and further members
    of the problem document. The detail is a sentence for a person and never contains a secret."""

    type: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    constraints: ClassVar[tuple[str, ...]]  # the names of the database's constraints whose violation means this error
    detail: str
    headers: Mapping[str, str] = {}
    members: Mapping[str, Any] = {}

    def __init_subclass__(
        cls, *, status: int | None = None, title: str | None = None, constraints: tuple[str, ...] = (), **members: str
    ) -> None:
        cls.type = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()
        cls.status, cls.title, cls.constraints = status or cls.status, title or cls.title, constraints
        cls.members = members or cls.members
        cls.detail = " ".join((cls.__doc__ or "").split())

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        self.detail = detail or self.detail
        self.headers = {**self.headers, **(headers or {})}
        self.members = {**self.members, **members}
        super().__init__(self.detail)


def found(value: Value | None, missing: AppError | type[AppError]) -> Value:
    """The value that was looked up, or this error if there is none: `found(session.get(Hero, 7), HeroNotFound)`."""
    if value is None:
        raise missing
    return value


class BadRequest(AppError, status=400, title="Bad request"):
    """The request could not be understood."""


# A reset, verification or e-mail change token that was used, has expired or was not issued here.
class InvalidLink(AppError, status=400, title="The link no longer works"):
    """The link has been used, has expired or is incomplete. Request a new one."""


# A redirect to a URI that the client did not register could lead to a thief (RFC 6749 section 4.1.2.1).
class UnknownClient(AppError, status=400, title="The app is not known here"):
    """The client_id or the redirect_uri is missing, repeated or not registered."""


# The same text for every reason, so that it does not tell which addresses have an account. InvalidGrant does the same.
class InvalidCredentials(AppError, status=400, title="Not signed in"):
    """The e-mail address or the password is wrong."""


# No credentials were sent: the challenge names no error (RFC 6750 section 3.1).
class Unauthenticated(AppError, status=401, title="Sign in first"):
    """This request needs an access token in the Authorization header."""

    headers: Mapping[str, str] = {"WWW-Authenticate": CHALLENGE}


class InvalidToken(AppError, status=401, title="The access token is not valid"):
    """The access token is expired, revoked or malformed. Refresh it or sign in again."""

    headers: Mapping[str, str] = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}


# Another site's page could send this with the cookie of its visitor (RFC 6265 section 8.2).
class ForeignOrigin(AppError, status=403, title="The request comes from another site"):
    """With a cookie, this request needs an Origin header that names this service or one of CORS_ORIGINS."""


class InsufficientScope(AppError, status=403, title="The access token lacks a scope"):
    """The access token does not allow this request."""

    def __init__(self, scope: str) -> None:
        headers = {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'}
        super().__init__(f"This request needs the scope {scope}.", headers=headers, scope=scope)


class MetricsRefused(AppError, status=403, title="Metrics are not public"):
    """In production, set METRICS_TOKEN. Elsewhere metrics are available without it, on this machine and never through
    a proxy."""


# A person's first token creates their account, which needs an address.
class EmailMissing(AppError, status=403, title="The identity provider supplied no e-mail address"):
    """The identity provider did not supply a valid e-mail address for you. Request the scope `email`."""


class NotFound(AppError, status=404, title="Not found"):
    """There is nothing at this address."""


class UserNotFound(NotFound, title="No such user"):
    """There is no user with this id."""


class SessionNotFound(NotFound, title="No such session"):
    """There is no live session with this id."""


class OperationNotFound(NotFound, title="No such operation"):
    """You have no operation with this id."""


class MethodNotAllowed(AppError, status=405, title="Method not allowed"):
    """This address does not support this method."""


class RequestTimeout(AppError, status=408, title="The body arrived too slowly"):
    """The request body did not arrive in time. Send it again."""


# Two changes collided, or a constraint rejected one: `field` names the value that another row has.
class Conflict(AppError, status=409, title="Conflict"):
    """The change conflicts with another one. Read the current version and repeat the change."""


class EmailTaken(Conflict, title="This e-mail address is taken", constraints=("uq_user_email",), field="email"):
    """An account with this e-mail address already exists. Sign in, or reset its password."""


class LastAdmin(Conflict, title="The last admin cannot be removed"):
    """Nobody would be left to administer the service. Make another account an admin first."""


class AlreadyConfirmed(AppError, status=409, title="Already confirmed"):
    """The e-mail address in this link is already confirmed."""


# Changes alone cannot bring the client's copy up to date.
class ResyncRequired(AppError, status=410, title="The copy must be filled again"):
    """The server no longer knows these changes. Empty the copy and fill it from since=0 with full=true."""


# If-Match (RFC 9110 section 13.1.1) protects another change from being overwritten.
class PreconditionFailed(AppError, status=412, title="Changed in the meantime"):
    """The operation has changed since the version that If-Match names. Read it again and repeat the change."""


class ContentTooLarge(AppError, status=413, title="The body is too large"):
    """The request body is larger than this server accepts."""


class UnsupportedMediaType(AppError, status=415, title="The body is encoded in a way that is not supported"):
    """Send the body as it is, not compressed."""


# `errors` lists {loc, msg, type}; the input itself is never repeated.
class Invalid(AppError, status=422, title="The request is not valid"):
    """At least one field is not valid."""

    @classmethod
    def at(cls, *loc: str, message: str, kind: str = "value_error") -> "Invalid":
        """The error for one field, such as at("body", "scopes", message="There is no such scope.")."""
        return cls(message, errors=[{"loc": list(loc), "msg": message, "type": kind}])


class IdempotencyKeyReused(AppError, status=422, title="The Idempotency-Key belongs to another request"):
    """This Idempotency-Key was already sent with another request. Generate a new key for each request."""


# `platform` and `minimum_version` are for the app to show.
class AppTooOld(AppError, status=426, title="This version of the app is no longer supported"):
    """This version of the app is no longer supported. Update the app."""


class TooManyRequests(AppError, status=429, title="Too many requests"):
    """Too many requests. Wait for the number of seconds in Retry-After."""


class HeadTooLarge(AppError, status=431, title="The URL or the headers are too large"):
    """The URL and the headers together are larger than this server accepts."""


class Internal(AppError, status=500, title="Internal error"):
    """The server failed. The ticket identifies the log entry."""


class Unavailable(AppError, status=503, title="Temporarily unavailable"):
    """The service is busy, or a part of it is unavailable. Try again shortly."""

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class RolesMissing(Unavailable, title="The roles are not loaded"):
    """The roles are not loaded. The operator runs ./scripts/seed.py."""


# The token may be valid: only the identity provider can tell.
class ProviderUnavailable(Unavailable, title="The identity provider is unavailable"):
    """The identity provider cannot be reached. The token may be valid: try again shortly."""


def problem(error: AppError) -> dict[str, Any]:
    """The members of an RFC 9457 document."""
    own = {"type": f"/problems/{error.type}", "title": error.title, "status": error.status, "detail": error.detail}
    return {**own, **error.members}
