#!/usr/bin/env python3
"""Load the roles, create an admin or a demo account, register apps. Safe to run again, and several times at once."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.command_line import Parser, use_project_python


def parse() -> argparse.Namespace:
    parser = Parser(prog="./scripts/seed.py", description=__doc__)
    parser.add_argument(
        "--update", action="store_true", help="reset existing roles to the scopes of app/core/scopes.py"
    )
    parser.add_argument("--demo", action="store_true", help="load a demo account with heroes, teams, tasks, operations")
    parser.add_argument(
        "--admin", metavar="EMAIL|ID", help="make this account an admin; an address without an account gets one"
    )
    parser.add_argument("--unverified", action="store_true", help="even if its address has never been verified")
    parser.add_argument("--client", metavar="ID", help="register an app that signs people in by authorization code")
    parser.add_argument(
        "--redirect-uri", metavar="URI", action="append", default=[], help="where its codes may go; may be repeated"
    )
    parser.add_argument("--name", help="the name that the consent page shows; default: the id")
    parser.epilog = (
        "The password of a new admin is asked for on a terminal, or else read from ADMIN_PASSWORD or standard input. "
        "With LOCAL_ACCOUNTS=off no account is created: that person has to sign in first."
    )
    options = parser.parse_args()
    if bool(options.client) != bool(options.redirect_uri):
        parser.error("--client and --redirect-uri go together")
    if options.name and not options.client:
        parser.error("--name goes with --client")
    if options.unverified and not options.admin:
        parser.error("--unverified goes with --admin")
    return options


if __name__ == "__main__":
    parse()  # --help and refusals need nothing installed
    use_project_python()

from collections.abc import Callable
from contextlib import suppress
from getpass import getpass
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from app.accounts.passwords import check_policy, hash_password, is_password
from app.accounts.users import create_user, end_all_sessions, get_role, lock_user
from app.core.dialects import insert_missing, make_engine
from app.core.errors import Invalid
from app.core.migrations import reason_not_to_start
from app.core.scopes import ADMIN, ROLES
from app.core.settings import Settings, get_settings
from app.models.audit import record
from app.models.base import utcnow
from app.models.oauth_client import OAuthClient, OAuthClientCreate
from app.models.types import email_address
from app.models.user import Role, User
from scripts.demo import DEMO_ACCOUNT, load_demo, refuse_demo_account
from scripts.errors import explained_errors

OPERATOR = "the operator"  # in the audit log


def main() -> None:
    options = parse()
    settings = get_settings()
    if options.demo:
        refuse_demo_account(settings)
    if reason := reason_not_to_start(settings):
        sys.exit(reason)
    with explained_errors(settings):
        load_roles(settings, overwrite=options.update)
        print(f"Roles: {', '.join(ROLES)}.")
        if options.demo:
            load_demo(settings)
            print(f"Demo account: {DEMO_ACCOUNT}.")
        if options.client:
            register_client(settings, options.client, options.redirect_uri, options.name or options.client)
        if options.admin:
            make_admin_from_command_line(settings, options.admin, unverified=options.unverified)
        else:
            make_first_admin(settings)


# ---- Roles ----


def load_roles(settings: Settings, *, overwrite: bool = False) -> None:
    """Insert the missing roles and Swagger UI's client; unique constraints decide between two that run at once."""
    engine = make_engine(settings)
    with Session(engine) as session:
        known = {role.name: role for role in session.exec(select(Role))}
        for name, scopes in ROLES.items():
            if name not in known:
                insert_missing(session, Role, name=name, scopes=scopes)
            elif overwrite and known[name].scopes != scopes:
                known[name].scopes = scopes
                record(session, "role-scopes-changed", role=name, scopes=" ".join(scopes), by=OPERATOR)
        _load_docs_client(session, settings)
        session.commit()
    engine.dispose()


# ---- Clients ----


def _load_docs_client(session: Session, settings: Settings) -> None:
    """Register Swagger UI, at PUBLIC_URL and on this machine."""
    uris = [f"{url}/static/docs-signed-in.html" for url in (settings.public_url, "http://127.0.0.1", "http://[::1]")]
    values = {"id": "swagger", "name": "API documentation", "redirect_uris": uris}
    insert_missing(session, OAuthClient, created_at=utcnow(), **values)
    client = session.get_one(OAuthClient, "swagger")
    if missing := [uri for uri in uris if uri not in client.redirect_uris]:  # PUBLIC_URL has changed
        client.redirect_uris = [*client.redirect_uris, *missing]


def register_client(settings: Settings, client_id: str, redirect_uris: list[str], name: str) -> None:
    """Insert the client, or replace its name and redirect URIs."""
    try:
        body = OAuthClientCreate.model_validate({"id": client_id, "redirect_uris": redirect_uris, "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"muster: {first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    engine = make_engine(settings)
    with Session(engine) as session:
        is_known = session.get(OAuthClient, client_id) is not None
        insert_missing(session, OAuthClient, created_at=utcnow(), **body.model_dump())
        client = session.get_one(OAuthClient, client_id, populate_existing=True)
        client.sqlmodel_update(body.model_dump())
        session.add(client)
        record(session, "client-changed" if is_known else "client-registered", client_id=client_id, by=OPERATOR)
        session.commit()
    engine.dispose()
    print(f"Client: {client_id}.")


# ---- Admins ----


def has_admin(settings: Settings) -> bool:
    engine = make_engine(settings, read_only=True)
    with Session(engine) as session:
        admins = select(User.id).join(Role).where(Role.name == ADMIN)
        found = session.exec(admins.limit(1)).first() is not None
    engine.dispose()
    return found


def make_first_admin(settings: Settings) -> None:
    """Use ADMIN_EMAIL and ADMIN_PASSWORD, for containers, but only while there is no admin."""
    if not settings.admin_email or not settings.admin_password or settings.local_accounts == "off":
        return
    if has_admin(settings):
        return
    try:
        make_admin(settings, settings.admin_email, settings.admin_password, refuse=_unless_its_password(settings))
    except ValueError as error:
        sys.exit(f"muster: ADMIN_EMAIL: {error}")
    except Invalid as error:
        sys.exit(f"muster: ADMIN_PASSWORD: {error}")


def _unless_its_password(settings: Settings) -> Callable[[User], None]:
    """Refuse an existing account whose password is not ADMIN_PASSWORD: it may be that of a stranger who registered
    ADMIN_EMAIL first, or whom the identity provider knows by it."""

    def refuse(user: User) -> None:
        if not is_password(settings.admin_password or "", user.password_hash):
            raise ValueError(
                "this account exists, and ADMIN_PASSWORD is not its password; if it is the right person's, make it an"
                f" admin with ./scripts/seed.py --admin {user.id}"
            )

    return refuse


def make_admin_from_command_line(settings: Settings, whom: str, *, unverified: bool) -> None:
    def refuse(user: User) -> None:
        if not (user.is_verified or unverified or whom == str(user.id)):
            raise ValueError(
                "the address of this account is not verified: anybody may have registered it; name the account by its"
                f" id, {user.id}, or add --unverified"
            )

    try:
        make_admin(settings, whom, None, refuse=refuse)
    except (ValueError, Invalid) as error:
        sys.exit(f"muster: {error}")
    print("The account is an admin.")


def make_admin(settings: Settings, whom: str, password: str | None, *, refuse: Callable[[User], None]) -> None:
    """Give an account, by address or id, the role admin, and create it if there is none with this address.

    An existing account is signed out everywhere, unless `refuse` raises an error. Raises ValueError for an invalid
    address or an account that cannot be created, Invalid for a weak password.
    """
    engine = make_engine(settings)
    with Session(engine) as session:
        exists = _find(session, whom) is not None
    if not exists and _as_id(whom):
        raise ValueError("there is no account with this id")
    if not exists:
        _create_admin(settings, email_address(whom), password)
    with Session(engine) as session:
        user_id = _find(session, whom)
        user = lock_user(session, user_id) if user_id else None
        if user is not None and user.role.name != ADMIN:
            refuse(user)
            user.role = get_role(session, ADMIN)
            end_all_sessions(session, user, reason="made-admin")
            record(session, "role-changed", user_id=user.id, role=ADMIN, by=OPERATOR)
            session.commit()
    engine.dispose()


def _find(session: Session, whom: str) -> UUID | None:
    user_id = _as_id(whom)
    is_whom = User.id == user_id if user_id else User.email == email_address(whom)
    return session.exec(select(User.id).where(is_whom)).first()


def _as_id(whom: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(whom)
    return None


def _create_admin(settings: Settings, email: str, password: str | None) -> None:
    """Create the account. Its address is taken as verified."""
    if settings.local_accounts == "off":
        raise ValueError("LOCAL_ACCOUNTS=off: this person has to sign in at the identity provider first")
    password = password or settings.admin_password or _ask_for_password()
    check_policy(password, related=[email], field="password")
    password_hash = hash_password(password)
    engine = make_engine(settings)
    with Session(engine) as session:
        try:
            create_user(session, User(email=email, password_hash=password_hash, is_verified=True), ADMIN)
            session.commit()
        except IntegrityError:
            session.rollback()  # somebody else was first
    engine.dispose()


def _ask_for_password() -> str:
    if not sys.stdin.isatty():
        given = sys.stdin.readline().rstrip("\n")
        return given or sys.exit("muster: standard input has no password: pipe one, or set ADMIN_PASSWORD")
    password = getpass("Password: ")
    if password != getpass("Repeat the password: "):
        sys.exit("muster: the passwords differ")
    return password


if __name__ == "__main__":
    main()
