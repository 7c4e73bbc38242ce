"""The errors of the API, one class for each problem type (RFC 9457). app/http/error_handlers.py responds with them."""

from collections.abc import Mapping
from typing import Any, ClassVar

# Errors of these endpoints are RFC 6749's JSON; all others are problem+json.
OAUTH_PATHS = frozenset({"/api/auth/token", "/api/auth/revoke", "/api/auth/introspect"})


class AppError(Exception):
    """An error that the client may see. `detail` is a sentence for a person and never holds a secret."""

    status: ClassVar[int]
    type: ClassVar[str]
    title: ClassVar[str]
    detail: str

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        self.detail = detail or type(self).detail
        self.headers = dict(headers or {})
        self.members = members
        super().__init__(self.detail)


class BadRequest(AppError):
    status, type, title = 400, "bad-request", "Bad request"
    detail = "The request could not be understood."


class Unauthenticated(AppError):
    """No credentials were sent: the challenge names no error (RFC 6750 section 3.1)."""

    status, type, title = 401, "unauthenticated", "Sign in first"
    detail = "This request needs an access token in the Authorization header."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="muster"'})


class InvalidToken(AppError):
    status, type, title = 401, "invalid-token", "The access token is not valid"
    detail = "The access token is expired, revoked or malformed. Refresh it or sign in again."

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="muster", error="invalid_token"'})


class InvalidCredentials(AppError):
    """One text for every reason, so that a guess learns nothing."""

    status, type, title = 400, "invalid-credentials", "Not signed in"
    detail = "The e-mail address or the password is wrong."


class ForeignOrigin(AppError):
    """Another site's page could send this with the cookie of its visitor (RFC 6265 section 8.2)."""

    status, type, title = 403, "foreign-origin", "The request comes from another site"
    detail = "With a cookie, this request needs an Origin header that names this service or one of CORS_ORIGINS."


class InsufficientScope(AppError):
    status, type, title = 403, "insufficient-scope", "The access token lacks a scope"
    detail = "The access token does not allow this request."

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"This request needs the scope {scope}.",
            headers={"WWW-Authenticate": f'Bearer realm="muster", error="insufficient_scope", scope="{scope}"'},
            scope=scope,
        )


class MetricsRefused(AppError):
    status, type, title = 403, "metrics-refused", "Metrics are not public"
    detail = "Without METRICS_TOKEN, metrics are available on this machine only, and never through a proxy."


class WrongPassword(AppError):
    status, type, title = 403, "wrong-password", "The current password is wrong"
    detail = "The current password is wrong."


class PasswordElsewhere(AppError):
    status, type, title = 403, "password-elsewhere", "This account has no password here"
    detail = "The identity provider keeps the password and the e-mail address of this account. Change them there."


class SignInAgain(AppError):
    status, type, title = 403, "sign-in-again", "Sign in again"
    detail = "This request needs a sign-in at the identity provider within the last five minutes."


class EmailMissing(AppError):
    """A person's first token creates the account, which needs an address."""

    status, type, title = 403, "email-missing", "The identity provider names no e-mail address"
    detail = "The identity provider names no valid e-mail address for you. Request the scope email."


class NotYourTask(AppError):
    status, type, title = 403, "not-your-task", "You may not change this task"
    detail = "Only the author and the assignee of a task may change it."


class NotFound(AppError):
    status, type, title = 404, "not-found", "Not found"
    detail = "There is nothing at this address."


class UserNotFound(NotFound):
    type, title = "user-not-found", "No such user"
    detail = "There is no user with this id."


class SessionNotFound(NotFound):
    type, title = "session-not-found", "No such session"
    detail = "You have no session with this id."


class RoleNotFound(NotFound):
    type, title = "role-not-found", "No such role"
    detail = "There is no role with this name."


class HeroNotFound(NotFound):
    type, title = "hero-not-found", "No such hero"
    detail = "There is no hero with this id."


class TeamNotFound(NotFound):
    type, title = "team-not-found", "No such team"
    detail = "There is no team with this id."


class TaskNotFound(NotFound):
    type, title = "task-not-found", "No such task"
    detail = "There is no task with this id."


class OperationNotFound(NotFound):
    type, title = "operation-not-found", "No such operation"
    detail = "You have no operation with this id."


class JobNotFound(NotFound):
    type, title = "job-not-found", "No such job"
    detail = "You have no job with this id."


class ResultNotFound(NotFound):
    type, title = "result-not-found", "The job has no result"
    detail = "The job has no result, because it has not finished or because it failed. Its state says which."


class MethodNotAllowed(AppError):
    status, type, title = 405, "method-not-allowed", "Method not allowed"
    detail = "This address does not support this method."


class RequestTimeout(AppError):
    status, type, title = 408, "request-timeout", "The body arrived too slowly"
    detail = "The request body did not arrive in time. Send it again."


class Conflict(AppError):
    """Two changes collided, or a constraint rejected one: `field` names the value that another row has."""

    status, type, title = 409, "conflict", "Conflict"
    detail = "The change conflicts with another one. Read the current version and repeat the change."
    field: ClassVar[str | None] = None

    def __init__(self, detail: str | None = None) -> None:
        members: dict[str, Any] = {"field": self.field} if self.field else {}
        super().__init__(detail, **members)


class EmailTaken(Conflict):
    field = "email"
    type, title = "email-taken", "This e-mail address is taken"
    detail = "An account with this e-mail address already exists. Sign in, or reset its password."


class HeroNameTaken(Conflict):
    field = "name"
    type, title = "hero-name-taken", "This hero name is taken"
    detail = "A hero with this name already exists. Choose another name."


class TeamNameTaken(Conflict):
    field = "name"
    type, title = "team-name-taken", "This team name is taken"
    detail = "A team with this name already exists. Choose another name."


class LastAdmin(Conflict):
    type, title = "last-admin", "The last admin cannot be removed"
    detail = "Nobody would be left to administer the service. Make another account an admin first."


class JobEnded(Conflict):
    type, title = "job-ended", "The job has finished"
    detail = "The job has finished, so it cannot be canceled."


class ResyncRequired(AppError):
    """Changes alone cannot bring the client's copy up to date."""

    status, type, title = 410, "resync-required", "The copy must be filled again"
    detail = "The server no longer knows these changes. Empty the copy and fill it from since=0 with full=true."


class PreconditionFailed(AppError):
    """RFC 9110 section 13.1.1: protects another change from being overwritten."""

    status, type, title = 412, "precondition-failed", "Changed in the meantime"
    detail = "The operation has changed since the version that If-Match names. Read it again and repeat the change."


class ContentTooLarge(AppError):
    status, type, title = 413, "content-too-large", "The body is too large"
    detail = "The request body is larger than this server accepts."


class UnsupportedMediaType(AppError):
    status, type, title = 415, "unsupported-media-type", "The body is encoded in a way that is not supported"
    detail = "Send the body as it is, not compressed."


class Invalid(AppError):
    """`errors` lists {loc, msg, type}; the input itself is never repeated."""

    status, type, title = 422, "invalid", "The request is not valid"
    detail = "At least one field is not valid."

    @classmethod
    def at(cls, *loc: str, message: str, kind: str = "value_error") -> "Invalid":
        """The error for one field, such as at("body", "scopes", message="There is no such scope.")."""
        return cls(message, errors=[{"loc": list(loc), "msg": message, "type": kind}])


class IdempotencyKeyReused(AppError):
    status, type, title = 422, "idempotency-key-reused", "The Idempotency-Key belongs to another request"
    detail = "This Idempotency-Key was already sent with another request. Generate a new key for each request."


class InvalidLink(AppError):
    """A reset, verification or e-mail change token that was used, has expired or was not issued here."""

    status, type, title = 400, "invalid-link", "The link no longer works"
    detail = "The link has been used, has expired or is incomplete. Request a new one."


class HeadTooLarge(AppError):
    status, type, title = 431, "head-too-large", "The address or the headers are too large"
    detail = "The address and the headers together are larger than this server accepts."


class TooManyRequests(AppError):
    status, type, title = 429, "too-many-requests", "Too many requests"
    detail = "Too many requests. Wait for the number of seconds in Retry-After."


class Internal(AppError):
    status, type, title = 500, "internal", "Internal error"
    detail = "The server failed. The ticket names the log line."


class Unavailable(AppError):
    status, type, title = 503, "unavailable", "Temporarily unavailable"
    detail = "The service is busy, or a part of it is unavailable. Try again shortly."

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class RolesMissing(Unavailable):
    type, title = "roles-missing", "The roles are not loaded"
    detail = "The roles are not loaded. The operator runs ./scripts/seed.py."

    def __init__(self) -> None:
        super().__init__(retry_after=60)


class ProviderUnavailable(Unavailable):
    """The token may be valid: only the identity provider can tell."""

    type, title = "provider-unavailable", "The identity provider is unavailable"
    detail = "The identity provider cannot be reached. The token may be valid: try again shortly."


class OAuthError(AppError):
    """An error of the token endpoint (RFC 6749 section 5.2); `error` is its code."""

    status, type, title = 400, "oauth", "The token request failed"
    detail = "The token request failed."
    error: ClassVar[str] = "invalid_request"


class InvalidRequest(OAuthError):
    error = "invalid_request"
    detail = "The request lacks a parameter, repeats one, or is malformed."


class InvalidGrant(OAuthError):
    """One text for every reason, so that a guess learns nothing."""

    error = "invalid_grant"
    detail = "The credentials or the refresh token are not valid."


class InvalidScope(OAuthError):
    error = "invalid_scope"
    detail = "The scope is unknown, malformed, or exceeds what was granted."


class UnsupportedGrantType(OAuthError):
    error = "unsupported_grant_type"
    detail = "The supported grant types are password and refresh_token."


class InvalidClient(OAuthError):
    status = 401
    error = "invalid_client"
    detail = "The client is unknown. Send the request without client authentication."

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": 'Basic realm="muster"'})


def problem(error: AppError) -> dict[str, Any]:
    """The members of an RFC 9457 document."""
    return {
        "type": f"/problems/{error.type}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **error.members,
    }


def oauth_error(error: AppError) -> dict[str, Any]:
    """RFC 6749 section 5.2, for the OAuth endpoints; an error of another kind becomes the code nearest to it."""
    match error:
        case OAuthError():
            code = error.error
        case Unauthenticated() | InvalidToken():  # RFC 6750 section 3.1
            code = "invalid_token"
        case InsufficientScope():
            code = "insufficient_scope"
        case _:
            code = {429: "temporarily_unavailable", 500: "server_error", 503: "temporarily_unavailable"}.get(
                error.status, "invalid_request"
            )
    return {"error": code, "error_description": error.detail, "detail": error.detail, **error.members}
