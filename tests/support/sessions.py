"""Helpers for tests of sessions: rows and their age, tokens signed by the test, and whether a session is still live."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import text

from app.core.crypto import TokenSigner, parse_signed
from app.models.refresh_token import RefreshToken
from app.oauth2.access_tokens import AccessClaims, AccessTokenSigner
from tests.support.assertions import assert_oauth_error
from tests.support.databases import SECRET_KEY
from tests.support.servers import Account, Muster, Tokens, claims_of

NOBODY = "01a20be7-0000-7000-8000-000000000000"  # fixed: every worker has to collect the same tests

GRACE = timedelta(seconds=30)  # the default of REFRESH_GRACE
WITHIN_GRACE = timedelta(seconds=20)
BEYOND_GRACE = timedelta(seconds=31)

COLUMNS = list(RefreshToken.model_fields)

Use = Callable[[Muster, Tokens], httpx.Response]
USES: dict[str, Use] = {
    "as bearer": lambda muster, tokens: muster.me(tokens),
    "to refresh": lambda muster, tokens: muster.refresh(tokens.refresh),
}


def session_id(tokens: Tokens) -> UUID:
    return UUID(claims_of(tokens.access)["sid"])


def session_of(code: str) -> UUID:
    """The id of the session that an authorization code is to begin."""
    presented = parse_signed(code)
    assert presented is not None
    return presented.id


def row_of(muster: Muster, session: Tokens | UUID) -> Any:
    """The session's refresh_token row."""
    return muster.sql("SELECT * FROM refresh_token WHERE id = :id", id=_id_of(session).hex)[0]


def _id_of(session: Tokens | UUID) -> UUID:
    return session if isinstance(session, UUID) else session_id(session)


def make_older(muster: Muster, *sessions: Tokens | UUID, age: timedelta) -> None:
    """Age these sessions without waiting: move every timestamp of their rows that far into the past."""
    on_sqlite = muster.on_sqlite
    earlier = "strftime('%Y-%m-%d %H:%M:%f000', {0}, '-{1} seconds')" if on_sqlite else "{0} - interval '{1} seconds'"
    moments = [name for name in COLUMNS if name.endswith("_at")]
    changes = ", ".join(f"{name} = {earlier.format(name, age.total_seconds())}" for name in moments)
    # Our own column names and a number.
    statement = text(f"UPDATE refresh_token SET {changes} WHERE id = :id")  # noqa: S608
    with muster.engine.begin() as connection:
        connection.execute(statement, [{"id": _id_of(session).hex} for session in sessions])


def more_devices(muster: Muster, tokens: Tokens, number: int) -> list[Tokens]:
    """Copy a session under new ids, and return the tokens of the copies: more sign-ins without hashing passwords."""
    row, ids = row_of(muster, tokens), [uuid4() for _ in range(number)]
    others = ", ".join(name for name in COLUMNS if name != "id")
    # Our own column names.
    copy = f"INSERT INTO refresh_token (id, {others}) SELECT :copy, {others} FROM refresh_token WHERE id = :id"  # noqa: S608
    with muster.engine.begin() as connection:
        connection.execute(text(copy), [{"copy": copy_id.hex, "id": session_id(tokens).hex} for copy_id in ids])
    return [
        Tokens(
            access_token=sign_access(tokens, row.generation, session=copy_id),
            refresh_token=sign_refresh(row, row.generation, session=copy_id),
        )
        for copy_id in ids
    ]


def sign_refresh(row: Any, generation: int, *, session: UUID | None = None) -> str:
    """A refresh token of this row as the service makes it: what a restored database could have handed out before."""
    signer = TokenSigner([SECRET_KEY], "refresh")
    return signer.sign(session or UUID(str(row.id)), generation, row.secret)


def sign_cookie(tokens: Tokens, *, age: int) -> str:
    """The access token of a browser's cookie, made that many seconds earlier."""
    return sign_access(tokens, claims_of(tokens.access)["gen"], age=age)


def sign_access(tokens: Tokens, generation: int, *, session: UUID | None = None, age: int = 0) -> str:
    """The access token of this pair, but of another generation, and made that many seconds earlier."""
    claims = claims_of(tokens.access)
    signer = AccessTokenSigner([SECRET_KEY], claims["iss"])
    return signer.mint(
        AccessClaims(
            subject=UUID(claims["sub"]),
            session_id=session or UUID(claims["sid"]),
            generation=generation,
            client_id=claims["client_id"],
            scope=claims["scope"],
            auth_time=claims["auth_time"],
            issued_at=claims["iat"] - age,
            expires_at=claims["exp"] - age,
            token_id=uuid4().hex,
            in_cookie=claims.get("cookie", False),
        )
    )


def refreshed(muster: Muster, tokens: Tokens) -> Tokens:
    """Refresh, and return the next token pair."""
    answer = muster.refresh(tokens.refresh)
    assert answer.status_code == 200, answer.text
    return Tokens(answer.json())


def is_refused(answer: httpx.Response) -> bool:
    """Whether the token endpoint, or a route with a bearer token, rejected the token as invalid."""
    if answer.request.url.path == "/api/auth/token":
        return answer.status_code == 400 and answer.json()["error"] == "invalid_grant"
    return answer.status_code == 401 and 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def assert_signed_out(muster: Muster, *handed_out: Tokens) -> None:
    """Every one of these access and refresh tokens is rejected."""
    for tokens in handed_out:
        assert is_refused(muster.me(tokens))
        assert_oauth_error(muster.refresh(tokens.refresh), 400, "invalid_grant")


def assert_lives(muster: Muster, tokens: Tokens) -> Tokens:
    """Both tokens are accepted; return the next pair."""
    assert muster.me(tokens).status_code == 200
    return refreshed(muster, tokens)


def thefts_mailed(muster: Muster, account: Account) -> int:
    """The number of mails that reported a theft. Mails leave in order, so all have arrived once a later one has."""
    answer = muster.client.post("/api/auth/forgot-password", json={"email": account.email})
    assert answer.status_code == 202
    muster.mails(account.email, subject="Reset your password")
    return len(muster.mails(account.email, subject="A device was signed out"))


def expired(tokens: Tokens) -> str:
    """The access token as if it had been made a year ago."""
    return sign_access(tokens, claims_of(tokens.access)["gen"], age=365 * 24 * 3600)


def id_of(tokens: Tokens) -> str:
    """The id of the person whose tokens these are."""
    return str(claims_of(tokens.access)["sub"])
