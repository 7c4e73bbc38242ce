#!/usr/bin/env python3
"""Load the roles, and create an admin or a demo account. Safe to run again, and several times at once."""

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
    parser.add_argument("--admin", metavar="EMAIL", help="make this account an admin, and create it if there is none")
    parser.epilog = (
        "The password of a new admin is asked for on a terminal, or else read from ADMIN_PASSWORD or standard input. "
        "With LOCAL_ACCOUNTS=off no account is created: that person has to sign in first."
    )
    return parser.parse_args()


if __name__ == "__main__":
    parse()  # --help and refusals need nothing installed
    use_project_python()

from getpass import getpass

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from app.accounts.passwords import check_policy, hash_password
from app.accounts.users import create_user, find_user_by_email, get_role
from app.core.dialects import insert_missing, make_engine
from app.core.errors import Invalid
from app.core.schema import reason_not_to_start
from app.core.scopes import ADMIN, ROLES
from app.core.settings import Settings, get_settings
from app.models.types import email_address
from app.models.user import Role, User
from scripts.demo import DEMO_ACCOUNT, load_demo, refuse_demo_account
from scripts.errors import explained_errors


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
        if options.admin:
            make_admin_from_command_line(settings, options.admin)
        else:
            make_first_admin(settings)


# ---- Roles ----


def load_roles(settings: Settings, *, overwrite: bool = False) -> None:
    """Insert the missing roles; the unique constraint decides between two that run at once."""
    engine = make_engine(settings)
    with Session(engine) as session:
        known = {role.name: role for role in session.exec(select(Role))}
        for name, scopes in ROLES.items():
            if name not in known:
                insert_missing(session, Role, ["name"], name=name, scopes=scopes)
            elif overwrite:
                known[name].scopes = scopes
        session.commit()
    engine.dispose()


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
        make_admin(settings, settings.admin_email, password=settings.admin_password)
    except ValueError as error:
        sys.exit(f"muster: ADMIN_EMAIL: {error}")
    except Invalid as error:
        sys.exit(f"muster: ADMIN_PASSWORD: {error}")


def make_admin_from_command_line(settings: Settings, address: str) -> None:
    try:
        make_admin(settings, address, password=None)
    except (ValueError, Invalid) as error:
        sys.exit(f"muster: {error}")
    print("The account is an admin.")


def make_admin(settings: Settings, address: str, *, password: str | None) -> None:
    """Give an account the role admin, and create it if there is none; its address is taken as verified.

    Raises ValueError for an address that is none or an account that cannot be created, Invalid for a weak password.
    """
    email = email_address(address)
    engine = make_engine(settings)
    with Session(engine) as session:
        exists = find_user_by_email(session, email) is not None
    if not exists and settings.local_accounts == "off":
        raise ValueError("LOCAL_ACCOUNTS=off: this person has to sign in at the identity provider first")
    if not exists:
        _create_admin(settings, email, password or settings.admin_password or _ask_for_password())
    with Session(engine) as session:
        session.exec(select(User).where(User.email == email)).one().role_id = get_role(session, ADMIN).id
        session.commit()
    engine.dispose()


def _create_admin(settings: Settings, email: str, password: str) -> None:
    check_policy(password, min_length=settings.password_min_length, related=[email], field="password")
    password_hash = hash_password(password)
    engine = make_engine(settings)
    with Session(engine) as session:
        try:
            create_user(session, email=email, name=None, password_hash=password_hash, role=ADMIN, is_verified=True)
            session.commit()
        except IntegrityError:
            session.rollback()  # another process was first
    engine.dispose()


def _ask_for_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass("Password: ")
    if password != getpass("Repeat the password: "):
        sys.exit("muster: the passwords differ")
    return password


if __name__ == "__main__":
    main()
