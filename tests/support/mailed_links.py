"""Links in mails: asked for, made by the test, and redeemed."""

from datetime import UTC, datetime, timedelta

import httpx
from sqlmodel import Session

from app.accounts.email_tokens import make_link_token
from app.accounts.users import find_user_by_email
from app.models.user import LinkKind
from app.oauth2.access_tokens import Signers
from tests.support.databases import SECRET_KEY
from tests.support.servers import Account, Muster

NEW_PASSWORD = "copper-lantern-meadow"
RESET, CONFIRM, CONFIRM_NEW = "Reset your password", "Confirm your e-mail address", "Confirm your new e-mail address"


def ask(muster: Muster, what: str, email: str) -> httpx.Response:
    return muster.client.post(f"/api/auth/{what}", json={"email": email})


def mailed_reset(muster: Muster, account: Account) -> str:
    """The token of a new reset link."""
    assert ask(muster, "forgot-password", account.email).status_code == 202
    return muster.link_token(account.email, subject=RESET)


def reset_password(muster: Muster, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    return muster.client.post("/api/auth/reset-password", json={"token": token, "new_password": password})


def new_link(
    muster: Muster, account: Account, kind: LinkKind, *, age: timedelta = timedelta(0), new_email: str = ""
) -> str:
    """The token that the service would have mailed that long ago."""
    with Session(muster.engine) as session:
        user = find_user_by_email(session, account.email)
        assert user is not None
        user.new_email = new_email or user.new_email
        token = make_link_token(Signers([SECRET_KEY], muster.url), user, kind, datetime.now(UTC) - age)
        if not new_email:  # then nobody has asked for it
            session.commit()
    return token
