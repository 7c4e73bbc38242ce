#!/usr/bin/env python3
"""Load the roles, and make an admin: idempotent, safe when run by several at once, by name and never by id.

./scripts/seed.py                        create the roles that are missing, change nothing that exists
./scripts/seed.py --update               also set the scopes of existing roles to those of app/core/scopes.py
./scripts/seed.py --demo                 also load a demo account with heroes, teams and tasks (scripts/demo.py)
./scripts/seed.py --admin ada@example.com
    make this account an admin. A new account needs a password: asked for on a terminal, else taken from
    ADMIN_PASSWORD, else read from standard input. With LOCAL_ACCOUNTS=off none is made: the person signs in first.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if Path(sys.prefix) != ROOT / ".venv":  # run with the project's own interpreter, whatever was called
        subprocess.run([ROOT / "scripts" / "venv"], check=True)
        python = str(ROOT / ".venv" / "bin" / "python")
        os.execv(python, [python, *sys.argv])  # noqa: S606  # our own interpreter, our own arguments
    sys.path[0] = str(ROOT)

import argparse
import asyncio
from getpass import getpass

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col

from app.accounts.passwords import PasswordHasher, check_policy
from app.accounts.users import create_user, find_user_by_email
from app.core.dialects import insert_missing, make_engine
from app.core.errors import Invalid
from app.core.scopes import ADMIN, ROLES
from app.core.settings import Settings, get_settings
from app.models.types import email_address
from app.models.user import Role, User


def main() -> None:
    parser = argparse.ArgumentParser(description="Load the roles, and make an admin.")
    parser.add_argument("--update", action="store_true", help="set existing roles to the scopes of app/core/scopes.py")
    parser.add_argument("--admin", metavar="EMAIL", help="make this account an admin")
    parser.add_argument("--demo", action="store_true", help="load a demo account, not in production")
    arguments = parser.parse_args()
    settings = get_settings()
    load_roles(settings, overwrite=arguments.update)
    print(f"Roles: {', '.join(ROLES)}.")
    if arguments.demo:
        from scripts.demo import account, load_demo  # noqa: PLC0415  # which imports scripts.start, and that imports us

        load_demo(settings)
        print(account())
    if arguments.admin:
        try:
            make_admin(settings, arguments.admin, password=None)
        except (ValueError, Invalid) as error:
            sys.exit(f"muster: {error}")
        print("The account is an admin.")
    else:
        first_admin_from_settings(settings)


def load_roles(settings: Settings, *, overwrite: bool = False) -> None:
    """Insert what is missing; the unique constraint decides between two that run at once."""
    engine = make_engine(settings)
    with Session(engine) as session:
        known = set(session.scalars(select(col(Role.name))))
        for name, scopes in ROLES.items():
            if name not in known:
                insert_missing(session, Role, ["name"], name=name, scopes=scopes)
            elif overwrite:
                session.connection().execute(update(Role).where(col(Role.name) == name).values(scopes=scopes))
        session.commit()
    engine.dispose()


def first_admin_from_settings(settings: Settings) -> None:
    """ADMIN_EMAIL and ADMIN_PASSWORD, for containers: used only while there is no admin, and local accounts."""
    if not settings.admin_email or not settings.admin_password or settings.local_accounts == "off":
        return
    engine = make_engine(settings, read_only=True)
    with Session(engine) as session:
        admins = select(col(User.id)).join(Role, col(Role.id) == col(User.role_id)).where(col(Role.name) == ADMIN)
        has_admin = session.scalars(admins.limit(1)).first() is not None
    engine.dispose()
    if has_admin:
        return
    try:
        make_admin(settings, settings.admin_email, password=settings.admin_password)
    except ValueError as error:
        sys.exit(f"muster: ADMIN_EMAIL: {error}")
    except Invalid as error:
        sys.exit(f"muster: ADMIN_PASSWORD: {error}")


def make_admin(settings: Settings, address: str, *, password: str | None) -> None:
    """Give an existing account the role admin, or make one, its address taken as verified.

    Raises ValueError if it is no address or the account cannot be made, Invalid if the password does not do.
    """
    email = email_address(address)
    engine = make_engine(settings)
    with Session(engine) as session:
        exists = find_user_by_email(session, email) is not None
    if not exists and settings.local_accounts == "off":
        raise ValueError("LOCAL_ACCOUNTS=off: this person has to sign in at the identity provider first")
    if not exists:
        _insert_admin(settings, email, password or settings.admin_password or _ask())
    with Session(engine) as session:
        admin_role = select(col(Role.id)).where(col(Role.name) == ADMIN).scalar_subquery()
        session.connection().execute(update(User).where(col(User.email) == email).values(role_id=admin_role))
        session.commit()
    engine.dispose()


def _insert_admin(settings: Settings, email: str, password: str) -> None:
    check_policy(password, min_length=settings.password_min_length, related=[email], field="password")
    password_hash = asyncio.run(_hash(password))
    engine = make_engine(settings)
    with Session(engine) as session:
        try:
            user = create_user(session, email=email, name=None, password_hash=password_hash, role=ADMIN)
            session.connection().execute(update(User).where(col(User.id) == user.id).values(is_verified=True))
            session.commit()
        except IntegrityError:
            session.rollback()  # another process made it first
    engine.dispose()


async def _hash(password: str) -> str:
    return await PasswordHasher().hash(password)


def _ask() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass("Password: ")
    if password != getpass("Once more: "):
        sys.exit("muster: the passwords differ")
    return password


if __name__ == "__main__":
    main()
