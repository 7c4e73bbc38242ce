"""Errors as responses: problem+json (RFC 9457), or RFC 6749's JSON at the OAuth endpoints."""

import logging
import re
from secrets import token_hex
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from app.core import errors, metrics
from app.core.dialects import as_app_error, reason
from app.core.oauth_errors import oauth_error
from app.http.middleware import route_template

log = logging.getLogger("muster.error")

_FIELD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

OAUTH_PATHS = frozenset({"/api/auth/token", "/api/auth/revoke", "/api/auth/introspect"})
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749 section 5.1


async def error_response(request: Request, exception: Exception) -> Response:
    """The response to any exception, with no more than the client may know."""
    error = classify(request, exception)
    metrics.count("errors", type=error.type)
    # Set by app/routers/auth_oidc.py: only browsers come there.
    if (pages := getattr(request.state, "pages", None)) is not None:
        return RedirectResponse(f"{pages}/sign-in?problem={error.type}", 303, NO_STORE)
    if request.url.path in OAUTH_PATHS:
        return JSONResponse(oauth_error(error), error.status, {**error.headers, **NO_STORE})
    return JSONResponse(errors.problem(error), error.status, error.headers, media_type="application/problem+json")


def classify(connection: HTTPConnection, error: Exception) -> errors.AppError:
    """The error as the client sees it. The details of an unexpected one go to the log."""
    match error:
        case errors.AppError():
            return error
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            # Raised by FastAPI, Starlette and app/http/bodies.py, never with 403: the first kind with its status fits.
            kinds = (kind for kind in errors.AppError.__subclasses__() if kind.status == error.status_code)
            kind = next(kinds, errors.BadRequest)
            return kind(headers=error.headers) if error.headers else kind()
        case SQLAlchemyError() | OSError() if known := as_app_error(error):
            if isinstance(known, errors.Unavailable):
                log.warning("unavailable: %s", reason(error))
            return known
    ticket = token_hex(6)
    method, route = connection.scope.get("method", "socket"), route_template(connection.scope)
    log.error("ticket %s: %s %s", ticket, method, route, exc_info=error)
    return errors.Internal(f"The server failed. The ticket {ticket} identifies the log entry.", ticket=ticket)


def _invalid(error: RequestValidationError) -> errors.Invalid:
    """The 422 with the place and the reason of 20 mistakes at most, never the input, which may be a password."""
    mistakes = [{"loc": [*map(_place, e["loc"])], "msg": _sentence(e), "type": e["type"]} for e in error.errors()[:20]]
    where, *inside = [part for part in mistakes[0]["loc"] if not part.isdecimal()]
    return errors.Invalid(f"In {'.'.join(inside) or where}: {mistakes[0]['msg']}", errors=mistakes)


def _sentence(mistake: dict[str, Any]) -> str:
    """Pydantic's message as a sentence, without its prefix and without regular expressions."""
    match mistake["type"]:
        case "string_pattern_mismatch":
            return "This has characters or a format that is not allowed here."
        case "json_invalid":
            return f"This is not JSON: {mistake['ctx']['error'].rstrip('.')}."
        case "model_attributes_type":
            return "This must be a JSON object, sent with Content-Type: application/json."
        case "uuid_parsing":
            return "This is not a UUID."
        case _:
            message = str(mistake["msg"]).removeprefix("Value error, ")
            return f"{message[:1].upper()}{message[1:].rstrip('.')}."


def _place(part: str | int) -> str:
    """A part of a location. The name of an unknown field is the client's: it is repeated only if it looks harmless."""
    text = str(part)
    return text if _FIELD.fullmatch(text) else "?"
