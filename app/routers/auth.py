"""Registration, the token endpoint (RFC 6749), revocation (RFC 7009), introspection (RFC 7662), and mailed links."""

from fastapi import Request, Response
from sqlmodel import Session

from app.accounts import email_tokens, users
from app.core.addresses import networks
from app.core.concurrency import in_thread
from app.core.crypto import sha256_base64url
from app.core.errors import AlreadyConfirmed, Conflict, EmailTaken, InvalidLink, RolesMissing
from app.core.oauth_errors import UnsupportedGrantType
from app.core.settings import get_settings
from app.dependencies import ServicesDep, SessionDep, requires
from app.http.openapi import OAUTH_ERRORS, form_body, located, problems
from app.http.rate_limit import RouteLimit, by_session, client_address
from app.http.routing import Router
from app.models.base import utcnow
from app.models.refresh_token import Introspection, TokenPair
from app.models.user import EmailBody, MailedToken, PasswordCheck, PasswordReset, User, UserCreate, UserPublic
from app.oauth2.requests import CodeBinding, CodeTokenForm, RevocationForm, RotationRequest, TokenForm
from app.sign_in import OAuthForm, parties_of, password_grant, require

router = Router(prefix="/api/auth", tags=["auth"])
local_accounts = Router(prefix="/api/auth", tags=["auth"])  # removed by LOCAL_ACCOUNTS=off (app/main.py)
settings = get_settings()
GRANTS = settings.grant_types
TOKEN_FORM = form_body(TokenForm if "password" in GRANTS else CodeTokenForm)
ONE_TOKEN = form_body(RevocationForm)
INTROSPECTOR = [requires("tokens:introspect")]

_REGISTERED = problems(EmailTaken, RolesMissing) | located("/api/users/me")
_NOT_RENEWED = problems(InvalidLink, AlreadyConfirmed)


@local_accounts.post("/register", status_code=201, responses=_REGISTERED)
@RouteLimit(settings.limit_register)
async def register(request: Request, response: Response, body: UserCreate, services: ServicesDep) -> UserPublic:
    """Create an account with the role `user`. A verification link is mailed; you can sign in at once."""
    hasher, parties = services.password_hasher, parties_of(request, body.email)
    password_hash = await hasher.hash_new(body.password, body, field="password", parties=parties)

    def create(session: Session) -> UserPublic:
        user = users.create_user(session, User.model_validate(body, update={"password_hash": password_hash}))
        services.jobs.mail(session, "verification", owner_id=user.id)
        return UserPublic.of(user)

    response.headers["Location"] = "/api/users/me"
    return await services.database.write(request, create)


@local_accounts.post("/check-password", status_code=204)
@RouteLimit(settings.limit_login_ip)
async def check_password(request: Request, body: PasswordCheck, services: ServicesDep) -> None:
    """Check a new password while it is typed, by the rule of registration: 204, or a 422 that says what is wrong."""
    hasher, parties = services.password_hasher, networks(client_address(request))
    await hasher.check(body.password, related=body.related, field="password", parties=parties)


# ---- The token endpoint ----


@router.post("/token", openapi_extra=TOKEN_FORM, responses=OAUTH_ERRORS, include_in_schema=bool(GRANTS))
@RouteLimit(settings.limit_login_ip, scope="sign-in", exempt_when=lambda request: not request.state.is_password_grant)
async def token(request: Request, form: OAuthForm, services: ServicesDep) -> TokenPair:
    """Sign in with `grant_type=authorization_code` or `password`; get the next token pair with `refresh_token`.

    The refresh token rotates at each use: store the new pair before using it, run one refresh at a time, and if a
    response is lost, repeat the same request, even days later. 429, 503 and network errors never mean that you are
    signed out; only `invalid_grant` does. A refresh may request fewer scopes; the next one without `scope` returns all
    again.
    """
    require(form, "grant_type")
    grant, arrived = form["grant_type"], request.state.arrived
    write, server = services.database.write, services.authorization_server
    if grant not in GRANTS:
        raise UnsupportedGrantType
    if grant == "password":
        return await password_grant(request, form, services, in_cookie=False)
    # The others read the clock once they have a slot. The grace begins with the rotation: a wait must not shorten it.
    if grant == "refresh_token":
        require(form, "refresh_token")
        rotation = RotationRequest(form["refresh_token"], arrived, form.get("client_id"), form.get("scope"))
        return await write(request, lambda session: server.refresh(session, rotation, utcnow()))
    require(form, "code", "redirect_uri", "client_id", "code_verifier")
    rotation = RotationRequest(form["code"], arrived)
    binding = CodeBinding(form["client_id"], form["redirect_uri"], sha256_base64url(form["code_verifier"]))
    return await write(request, lambda session: server.redeem(session, rotation, binding, utcnow()))


@router.post("/revoke", openapi_extra=ONE_TOKEN, response_class=Response, responses=OAUTH_ERRORS)
def revoke(form: OAuthForm, services: ServicesDep, session: SessionDep) -> None:
    """Sign out (RFC 7009): revoke the session of a refresh token of any age, or of an access token, even expired.

    Takes effect at once, on access tokens too. The response is 200 for unknown and used tokens as well.
    """
    require(form, "token")
    services.authorization_server.revoke(session, form["token"])


@router.post("/introspect", openapi_extra=ONE_TOKEN, responses=OAUTH_ERRORS, dependencies=INTROSPECTOR)
@RouteLimit(settings.limit_introspect, key=by_session)
async def introspect(request: Request, form: OAuthForm, services: ServicesDep) -> Introspection:
    """Whether an access token is active, and its claims (RFC 7662), for a service that accepts our tokens.

    A token that is expired, revoked, superseded or unknown, or is not an access token, is `{"active": false}`.
    Introspection does not count as a use.
    """
    require(form, "token")
    return await services.database.read(request, services.authorization_server.introspect, form["token"], utcnow())


# ---- Forgotten passwords and links ----


@local_accounts.post("/forgot-password", status_code=202, response_class=Response)
@RouteLimit(settings.limit_register)
def forgot_password(request: Request, body: EmailBody, services: ServicesDep, session: SessionDep) -> None:
    """Mail a password reset link. The response, and the time it takes, are the same for every address."""
    services.account_limits.count_mail_request(body.email, client_address(request))
    # The job looks the account up, so that a known address takes no longer than an unknown one.
    services.jobs.mail(session, "reset", to=body.email)


@local_accounts.post("/request-verification", status_code=202, response_class=Response)
@RouteLimit(settings.limit_register)
def request_verification(request: Request, body: EmailBody, services: ServicesDep, session: SessionDep) -> None:
    """Mail the verification link again. The response is the same for every address."""
    services.account_limits.count_mail_request(body.email, client_address(request))
    services.jobs.mail(session, "verification", to=body.email)


@local_accounts.post("/reset-password", status_code=204, responses=problems(InvalidLink))
async def reset_password(request: Request, body: PasswordReset, services: ServicesDep) -> None:
    """Set a new password with a mailed token. Revokes every session and marks the address as verified."""
    user = await services.database.read(request, email_tokens.verify_reset, services.signers, body.token, utcnow())
    hasher, parties = services.password_hasher, parties_of(request, str(user.id))
    password_hash = await hasher.hash_new(body.new_password, user, field="new_password", parties=parties)

    def reset(session: Session) -> None:
        try:
            users.replace_password(session, user, password_hash, reason="password-reset", is_verified=True)
        except Conflict:
            raise InvalidLink from None
        services.jobs.mail(session, "password-changed", owner_id=user.id, to=user.email)

    await services.database.write(request, reset)
    await in_thread(services.account_limits.forget_all, user.email, client_address(request))


@local_accounts.post("/renew-link", status_code=202, response_class=Response, responses=_NOT_RENEWED)
@RouteLimit(settings.limit_register)
def renew_link(request: Request, body: MailedToken, services: ServicesDep, session: SessionDep) -> None:
    """Mail a new link in place of one that has expired or was replaced: an `invalid-link` that is `renewable`."""
    kind, user = email_tokens.verify_renewable(session, services.signers, body.token)
    services.account_limits.count_mail_request(user.email, client_address(request))
    services.jobs.mail(session, kind, owner_id=user.id)


@local_accounts.post("/verify-email", status_code=204, responses=problems(InvalidLink, AlreadyConfirmed, EmailTaken))
def verify_email(body: MailedToken, services: ServicesDep, session: SessionDep) -> None:
    """Verify an address, or finish a change of address, with a mailed token."""
    user, former = email_tokens.redeem_verification(session, services.signers, body.token, utcnow())
    if former != user.email:
        services.jobs.mail(session, "email-changed", owner_id=user.id, to=former)
