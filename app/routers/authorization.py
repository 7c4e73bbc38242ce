"""The API behind the page /authorize (RFC 6749 section 4.1). Only browsers with our cookie may use it: a bearer token
could grant itself all scopes."""

from dataclasses import replace

from fastapi import Request
from sqlmodel import Field, SQLModel

from app.authentication import authenticate, bearer
from app.core.errors import Unauthenticated
from app.core.oauth_errors import AccessDenied, OAuthError
from app.core.scopes import in_order
from app.dependencies import ServicesDep
from app.http.cookies import require_own_origin
from app.http.routing import Router
from app.models.base import Body, utcnow
from app.models.refresh_token import MAX_LABEL
from app.oauth2.refresh_tokens import SignIn
from app.oauth2.requests import AuthorizationRequest, read_authorization_request, scope_at_login
from app.oauth2.resource_server import Caller
from app.services import Services, services_of
from app.sign_in import device_of

router = Router(prefix="/api/auth/authorization")


class Authorization(SQLModel):
    """The address to redirect to or, if the person has to be asked first, the question."""

    redirect: str = ""
    client: str = ""
    scopes: list[str] = Field(default_factory=list)
    email: str = ""


class Decision(Body):
    consent: bool
    email: str = ""  # the address that the page showed as signed in


@router.get("", include_in_schema=False)
async def read_authorization(request: Request, services: ServicesDep) -> Authorization:
    """The app and the scopes that it requests. The query is that of the authorization request."""
    return await _answer(request, services)


@router.post("", include_in_schema=False)
async def answer_authorization(request: Request, body: Decision, services: ServicesDep) -> Authorization:
    """Issue the code, or refuse it. Consent always takes a person's click on our page (RFC 8252 section 8.6)."""
    return await _answer(request, services, body)


async def _answer(request: Request, services: Services, decision: Decision | None = None) -> Authorization:
    """Ask, act on the decision, or redirect to the client with its error. People sign in for valid requests only.

    If somebody else has signed in since the page named the person, they are asked again.
    """
    issuer = services.settings.public_url
    oauth_request = await services.database.read(request, read_authorization_request, request.url.query)
    try:
        oauth_request.check()
        me = await authenticate(request, await bearer(request), [])
        if not me.claims.in_cookie:
            raise Unauthenticated
        scope = scope_at_login(oauth_request.parameters.get("scope"), me.session.role_scopes)
        if decision is not None and decision.email in {"", me.session.email}:
            require_own_origin(request, services.settings, allow_cors_origins=False)
            if not decision.consent:
                raise AccessDenied
            code = await _issue_code(request, oauth_request, me, scope)
            return Authorization(redirect=oauth_request.redirect(issuer, code=code))
    except OAuthError as error:
        return Authorization(redirect=oauth_request.error_redirect(error, issuer))
    scopes = in_order(frozenset(me.session.role_scopes)) if scope is None else scope.split()
    return Authorization(client=oauth_request.client.name, scopes=scopes, email=me.session.email)


async def _issue_code(request: Request, oauth_request: AuthorizationRequest, me: Caller, scope: str | None) -> str:
    services = services_of(request)
    device = device_of(request, {"client_id": oauth_request.client.id})
    device = replace(device, device=f"{oauth_request.client.name}, {device.device}"[:MAX_LABEL])
    sign_in = SignIn(me.user_id, me.session.auth_epoch, device, scope, authenticated_at=me.session.authenticated_at)
    issue = services.authorization_server.issue_code
    return await services.database.write(request, issue, sign_in, oauth_request, utcnow())
