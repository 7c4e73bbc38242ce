"""The lowest version of each app that the service supports: MIN_CLIENT_VERSIONS, and the header Client-Version."""

from starlette.types import Scope

from app.core.errors import AppTooOld, BadRequest
from app.core.settings import Settings
from app.core.settings_types import parse_client_version

# An app that is too old can still sign out, and monitoring is served whatever version it names.
OPEN_PATHS = ("/api/auth/revoke", "/api/auth/cookie/logout", "/health", "/metrics")


def check_client_version(scope: Scope, settings: Settings) -> None:
    """Raise AppTooOld for a version below its platform's minimum. Clients that name none are served."""
    sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"client-version"), None)
    if sent is None or scope["path"].startswith(OPEN_PATHS):
        return
    try:
        platform, version = parse_client_version(sent)
    except ValueError:
        raise BadRequest("Client-Version must be a platform and a version, such as ios/1.4.2.") from None
    minimum = dict(settings.min_client_versions).get(platform, "0")
    if _numbers(version) < _numbers(minimum):
        raise AppTooOld(platform=platform, minimum_version=minimum)


def _numbers(version: str) -> list[int]:
    """Comparable: 1.4 is 1.4.0, and 1.10 is newer than 1.9."""
    numbers = [int(part) for part in version.split(".")]
    return numbers + [0] * (4 - len(numbers))
