"""The demo account, with heroes, teams, tasks and their history, and a year of operations, as use might leave them.

./scripts/serve --demo and ./scripts/seed.py --demo load it in one transaction, never in production. Where the demo
account exists nothing changes, whatever has become of the other rows.
"""

import sys
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from app.accounts.passwords import hash_password
from app.accounts.users import create_user, find_user_by_email
from app.core.dialects import insert_missing, make_engine
from app.core.settings import Settings
from app.ledger.imports import import_operations
from app.models.base import utcnow
from app.models.hero import Hero, HeroTeamLink, Team
from app.models.operation import OperationCreate
from app.models.task import Task, TaskHistory
from app.models.user import User

DEMO_EMAIL = "demo@example.com"
DEMO_PASSWORD = "violet-tandem-harbor"  # noqa: S105  # public on purpose
DEMO_ACCOUNT = f"{DEMO_EMAIL}, password {DEMO_PASSWORD}"
PEOPLE = {DEMO_EMAIL: "Demo", "mira.demo@example.com": "Mira", "tomas.demo@example.com": "Tomás"}

# By team: its headquarters and its heroes, each with a secret name and an age that may be unknown.
TEAMS: dict[str, tuple[str, dict[str, tuple[str, int | None]]]] = {
    "Harbor Watch": (
        "The old lighthouse",
        {"Foghorn": ("Piet Claasen", 52), "Tidewalker": ("Ines Duarte", 29), "Anchor": ("Bo Lindqvist", 41)},
    ),
    "Night Shift": (
        "Platform 9, Central Station",
        {"Lantern Fox": ("Hana Ito", 24), "Owl Eye": ("Samir Haddad", 37), "Sleepless": ("Ruth Oyelaran", 33)},
    ),
    "The Gardeners": (
        "Greenhouse 4",
        {"Thornback": ("Jorge Pardo", 46), "Mossgiant": ("unknown", None), "Pollen": ("Lea Brandt", 19)},
    ),
    "Quick Answer": (
        "An unmarked van",
        {"Redial": ("Tess Kowalski", 31), "Shortcut": ("Dmitri Vale", 27), "Half Past": ("Noor Rahman", 58)},
    ),
    "Founders' Table": (
        "Back room of the Copper Kettle",
        {"Granite": ("Aldo Ferri", 71), "Silver Needle": ("Mei Castellan", 68), "Everyman": ("John Smith", 50)},
    ),
}
# What the demo account invests in: instrument type, FIGI and the usual quantity.
INSTRUMENTS = [
    ("share", "BBG000B9XRY4", "4"),
    ("etf", "BBG000BDTBL9", "2.5"),
    ("bond", "BBG00QNDZ1K6", "10"),
    ("btc", "KKG00000DV14", "0.0125"),
]
# Heroes who belong to a second team, and heroes who belong to none.
GUESTS = [("Foghorn", "Founders' Table"), ("Owl Eye", "Quick Answer"), ("Pollen", "Night Shift")]
LONERS: dict[str, tuple[str, int | None]] = {
    "Deadpond": ("Dive Wilson", None),
    "Spider-Boy": ("Pedro Parqueador", 16),
    "Rusty-Man": ("Tommy Sharp", 48),
}
TASKS = """
Repaint the lighthouse door; Order spare capes; Renew the van's registration; Fix the alarm on platform 9;
Water the greenhouse; Find out who Mossgiant is; Insure the unmarked van; Return the borrowed jet pack;
Translate the rules into Japanese; Update the emergency numbers; Plan the summer exercise; Replace the foghorn;
Answer the mayor's letter; Count the grappling hooks; Clean the trophy case; Book the back room for March;
Test the signal lamp; Write down the handshake; Sharpen the silver needle; Teach Pollen the radio code;
Mend the net; Check the first-aid kits; Choose a new motto; Reply to three applications; Archive last year's cases
""".split(";")  # noqa: SIM905  # a list of so many strings takes three times the lines


def refuse_demo_account(settings: Settings) -> None:
    """Exit where the demo account, whose password everybody knows, is forbidden or could not work."""
    if settings.environment == "production":
        sys.exit("muster: ENVIRONMENT: there is no demo account in production, because everybody knows its password")
    if settings.local_accounts == "off":
        sys.exit("muster: LOCAL_ACCOUNTS: the demo account signs in with a password, so this must be on")
    if settings.serves == "web":
        sys.exit("muster: SERVES: the pages alone (web) have no database for a demo account")


def load_demo(settings: Settings) -> None:
    """Load everything, or nothing where the demo account exists; the unique address decides between two at once."""
    engine = make_engine(settings)
    with Session(engine) as session:
        exists = find_user_by_email(session, DEMO_EMAIL) is not None
    if not exists:
        password_hash = hash_password(DEMO_PASSWORD)
        with Session(engine) as session:
            try:
                _load(session, password_hash, utcnow())
                session.info.pop("after_commit")  # no lines on the terminal about people whom nobody knows
                session.commit()
            except IntegrityError:
                session.rollback()  # another process was first
    engine.dispose()


def _load(session: Session, password_hash: str, now: datetime) -> None:
    people = [
        create_user(session, User(email=email, name=name, password_hash=password_hash, is_verified=True)).id
        for email, name in PEOPLE.items()
    ]
    _load_heroes(session, now)
    _load_operations(session, people[0], now)
    for number, title in enumerate(TASKS):
        _load_task(session, people, number, title.strip(), now - timedelta(days=75 - 3 * number, hours=number % 7))


def _load_heroes(session: Session, now: datetime) -> None:
    """Insert heroes and teams, by name; those that exist already stay as they are."""
    heroes = LONERS | {name: known for _, members in TEAMS.values() for name, known in members.items()}
    for name, (secret_name, age) in heroes.items():
        insert_missing(session, Hero, name=name, secret_name=secret_name, age=age)
    for name, (headquarters, _) in TEAMS.items():
        insert_missing(session, Team, name=name, headquarters=headquarters)
    pairs = [(hero, team) for team, (_, members) in TEAMS.items() for hero in members] + GUESTS
    hero_ids = dict(session.exec(select(Hero.name, Hero.id)).all())
    team_ids = dict(session.exec(select(Team.name, Team.id)).all())
    for number, (hero, team) in enumerate(pairs):
        joined_at = now - timedelta(days=400 - 17 * number)
        ids = {"hero_id": hero_ids[hero], "team_id": team_ids[team]}
        insert_missing(session, HeroTeamLink, **ids, joined_at=joined_at)


def _load_operations(session: Session, owner_id: UUID, now: datetime) -> None:
    """An operation every third day of a year, the oldest first: mostly bought, sometimes sold."""
    rows = []
    for number in range(122):
        instrument_type, figi, usual = INSTRUMENTS[number * number % 7 % len(INSTRUMENTS)]
        moment = now - timedelta(days=365 - 3 * number, minutes=37 * number % 480)
        row = {"type": "sell" if number % 5 == 4 else "buy", "instrument_type": instrument_type, "figi": figi}
        row |= {"quantity": f"{Decimal(usual) * (1 + number % 3):f}", "date": moment.isoformat()}
        rows.append(tuple(dict(OperationCreate.model_validate(row)).values()))
    import_operations(session, owner_id, rows, now)


def _load_task(session: Session, people: list[UUID], number: int, title: str, created_at: datetime) -> None:
    """A task that was reassigned up to three times, a day apart; about two of five are closed."""
    author = people[number % len(people)]
    assignees = [people[(number + step) % len(people)] for step in range(1, 1 + number % 4)]
    moments = [created_at + timedelta(days=step) for step in range(len(assignees) + 1)]
    closed_at = moments[-1] + timedelta(hours=5) if number % 5 in {1, 3} and moments[-1] < utcnow() else None
    task = Task(title=title, author_id=author, created_at=created_at, closed_at=closed_at)
    task.assignee_id = assignees[-1] if assignees else None
    session.add(task)
    session.flush()
    reassignments = zip([None, *assignees], assignees, [author, *assignees], moments, strict=False)
    for previous, new, by, changed_at in reassignments:
        change = {"task_id": task.id, "changed_by": by, "changed_at": changed_at}
        change |= {"previous_assignee_id": previous, "new_assignee_id": new}
        session.add(TaskHistory.model_validate(change))
