"""scripts/seed.py: it loads the roles and makes admins, is safe to repeat, and never overrules what an operator set."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.core.scopes import ADMIN, ROLES, USER
from app.core.settings import Settings
from scripts.seed import load_roles
from tests.support.assertions import assert_problem
from tests.support.databases import SECRET_KEY
from tests.support.processes import fork_script
from tests.support.schema import engine_for
from tests.support.seeds import SCRIPT, admins, seed, settings_for
from tests.support.servers import PASSWORD, Muster, Tokens
from tests.support.sessions import assert_signed_out

WEAK = "password1"
Roles = dict[str, tuple[int, list[str]]]

pytestmark = pytest.mark.slow


def sql(url: str, statement: str) -> None:
    with engine_for(url).begin() as connection:
        connection.execute(text(statement))


def roles(url: str) -> Roles:
    """The id and the scopes of each role, by its name."""
    with engine_for(url).begin() as connection:
        found = connection.execute(text("SELECT name, id, scopes FROM role ORDER BY id")).all()
    return {name: (id_, json.loads(scopes) if isinstance(scopes, str) else scopes) for name, id_, scopes in found}


# ---- Roles ----


def test_seed_creates_the_roles_from_any_folder_and_a_repeat_changes_nothing(database_url: str, tmp_path: Path) -> None:
    sql(database_url, "DELETE FROM role")
    assert seed(database_url, folder=tmp_path) == (0, "Roles: user, admin.\n")
    first = roles(database_url)
    assert {name: scopes for name, (_, scopes) in first.items()} == ROLES
    assert seed(database_url) == (0, "Roles: user, admin.\n")
    assert roles(database_url) == first


def test_ten_concurrent_runs_on_a_database_without_roles_create_each_role_once(database_url: str) -> None:
    sql(database_url, "DELETE FROM role")
    settings = Settings(environment="test", database_url=database_url, secret_keys=(SECRET_KEY,))
    start = Barrier(10)

    def load(_: int) -> None:
        start.wait()
        load_roles(settings)

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(load, range(10)))
    assert {name: scopes for name, (_, scopes) in roles(database_url).items()} == ROLES


def test_roles_are_matched_by_name_and_only_update_gives_existing_ones_their_first_scopes(database_url: str) -> None:
    sql(database_url, "DELETE FROM role")
    sql(database_url, """INSERT INTO role (id, name, scopes) VALUES (71, 'guest', '["me"]'), (72, 'admin', '["me"]')""")
    assert seed(database_url)[0] == 0
    assert {name: scopes for name, (_, scopes) in roles(database_url).items()} == {
        "guest": ["me"],
        ADMIN: ["me"],
        USER: ROLES[USER],
    }
    before = roles(database_url)
    assert seed(database_url, "--update")[0] == 0
    assert roles(database_url) == {**before, ADMIN: (72, ROLES[ADMIN])}


def test_without_roles_nobody_can_register_and_the_response_names_the_command(serve: Callable[..., Muster]) -> None:
    muster = serve()
    muster.sql("DELETE FROM role")
    body = {"email": "ada@example.com", "password": PASSWORD}
    refused = muster.client.post("/api/auth/register", json=body)
    assert_problem(refused, 503, "roles-missing")
    assert "./scripts/seed.py" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) > 0
    assert muster.client.get("/health/ready").json()["type"] == "/problems/roles-missing"
    assert seed(muster.database_url)[0] == 0
    assert muster.client.post("/api/auth/register", json=body).status_code == 201


# ---- Admins ----


@pytest.fixture
def email() -> str:
    return f"{uuid4().hex}@example.com"


def assert_is_admin(muster: Muster, email: str, password: str = PASSWORD) -> None:
    answer = muster.token(grant_type="password", username=email, password=password)
    assert answer.status_code == 200, answer.text
    me = muster.me(Tokens(answer.json())).json()
    assert (me["email"], me["role"], me["scopes"]) == (email, ADMIN, ROLES[ADMIN])


def is_verified(muster: Muster, email: str) -> bool:
    return bool(muster.sql('SELECT is_verified FROM "user" WHERE email = :email', email=email)[0].is_verified)


def test_the_password_of_a_new_admin_comes_from_the_environment_or_from_a_pipe(muster: Muster) -> None:
    by_environment, by_pipe = f"{uuid4().hex}@example.com", f"{uuid4().hex}@example.com"
    status, said = seed(muster.database_url, "--admin", by_environment, ADMIN_PASSWORD=PASSWORD)
    lines = said.splitlines()
    assert (status, lines[0], lines[-1]) == (0, "Roles: user, admin.", "The account is an admin.")
    assert lines[1].startswith("account-created user_id=")
    assert seed(muster.database_url, "--admin", by_pipe, answer=f"{PASSWORD}\n")[0] == 0
    for email in (by_environment, by_pipe):
        assert_is_admin(muster, email)
        assert is_verified(muster, email)


@pytest.mark.one_database
def test_on_a_terminal_the_password_is_asked_for_twice_and_never_shown(
    muster: Muster, email: str, tmp_path: Path
) -> None:
    status, shown = on_terminal(muster.database_url, email, [PASSWORD, "another-" + PASSWORD], tmp_path)
    assert status == 1
    assert "muster: the passwords differ" in shown
    assert muster.sql('SELECT 1 FROM "user" WHERE email = :email', email=email) == []

    status, shown = on_terminal(muster.database_url, email, [PASSWORD, PASSWORD], tmp_path)
    assert status == 0
    assert PASSWORD not in shown
    assert_is_admin(muster, email)


AS_ITS_SESSION = """
import os, runpy, sys
os.login_tty(os.open(sys.argv[1], os.O_RDWR))
sys.argv[:] = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def on_terminal(url: str, email: str, answers: list[str], folder: Path) -> tuple[int, str]:
    """Run scripts/seed.py as the only process of a terminal, whose keyboard and screen are ours."""
    start = folder / "start.py"
    start.write_text(AS_ITS_SESSION)
    ours, theirs = os.openpty()
    arguments = (os.ttyname(theirs), str(SCRIPT), "--admin", email)
    with ThreadPoolExecutor(1) as pool:
        process = pool.submit(fork_script, start, *arguments, environment=settings_for(url))
        shown = read_until(ours, "Password: ")
        os.close(theirs)
        os.write(ours, f"{answers[0]}\n".encode())
        shown += read_until(ours, "Repeat the password: ")
        os.write(ours, f"{answers[1]}\n".encode())
        shown += read_until(ours, None)
        status, _ = process.result()
    os.close(ours)
    return status, shown


def read_until(terminal: int, prompt: str | None) -> str:
    shown = b""
    while prompt is None or prompt.encode() not in shown:
        try:
            piece = os.read(terminal, 1024)
        except OSError:  # how Linux says that the last process has left the terminal
            piece = b""
        if not piece:
            assert prompt is None, f"no {prompt!r} in {shown.decode()!r}"
            break
        shown += piece
    return shown.decode()


@pytest.mark.parametrize("how", ["verified", "flag", "id"])
@pytest.mark.one_database
def test_an_existing_account_becomes_an_admin_keeps_its_password_and_is_signed_out(muster: Muster, how: str) -> None:
    ada = muster.new_account()
    tokens = ada.tokens()
    whom, flags = ada.email.upper(), ["--unverified"] if how == "flag" else []
    if how == "id":
        whom = muster.me(tokens).json()["id"]
    elif how == "verified":
        muster.sql('UPDATE "user" SET is_verified = true WHERE email = :email', email=ada.email)
    status, said = seed(muster.database_url, "--admin", whom, *flags, answer="not-asked-for-at-all")
    assert status == 0
    assert "role-changed user_id=" in said
    assert_signed_out(muster, tokens)
    assert_is_admin(muster, ada.email)
    done = "Roles: user, admin.\nThe account is an admin.\n"
    assert seed(muster.database_url, "--admin", ada.email) == (0, done)


def test_an_unverified_address_makes_no_admin(muster: Muster) -> None:
    stranger = muster.new_account()
    status, said = seed(muster.database_url, "--admin", stranger.email)
    assert status == 1
    assert said.splitlines()[-1].startswith("muster: the address of this account is not verified")
    assert stranger.email not in admins(muster.database_url)


@pytest.mark.parametrize(
    ("address", "password", "reason"),
    [
        ("{}@example.com", WEAK, "The password is common or easy to guess"),
        ("{}@example.com", "", "standard input has no password: pipe one, or set ADMIN_PASSWORD"),
        ("{}@example.com", "short", "The password needs at least 8 characters."),
        ("{}", PASSWORD, "there is no account with this id"),
        ("not-{}", PASSWORD, "this is not an e-mail address"),
    ],
)
@pytest.mark.one_database
def test_a_weak_password_or_no_address_is_refused_with_a_reason(
    muster: Muster, address: str, password: str, reason: str
) -> None:
    address = address.format(uuid4().hex)
    status, said = seed(muster.database_url, "--admin", address, answer=f"{password}\n")
    assert status == 1
    assert f"muster: {reason}" in said
    assert WEAK not in said
    assert muster.sql('SELECT 1 FROM "user" WHERE email = :email', email=address) == []


@pytest.mark.parametrize(
    "options", [("--unverified",), ("--name", "Ledger"), ("--admin", "a@b.co", "--name", "Ledger")]
)
@pytest.mark.one_database
def test_an_option_without_the_one_that_it_belongs_to_is_refused(database_url: str, options: tuple[str, ...]) -> None:
    status, said = seed(database_url, *options)
    assert (status, said.splitlines()[-1].partition(" ")[0]) == (2, "muster:")


def test_the_first_admin_of_the_settings_is_made_at_the_start_and_only_while_there_is_none(
    serve: Callable[..., Muster],
) -> None:
    muster = serve(ADMIN_EMAIL="first@example.com", ADMIN_PASSWORD=PASSWORD)
    assert_is_admin(muster, "first@example.com")
    assert seed(muster.database_url, ADMIN_EMAIL="second@example.com", ADMIN_PASSWORD=PASSWORD)[0] == 0
    assert admins(muster.database_url) == ["first@example.com"]


@pytest.mark.parametrize(
    ("email", "password", "line"),
    [
        ("ada@example.com", WEAK, "muster: ADMIN_PASSWORD: The password is common"),
        ("nonsense", PASSWORD, "muster: ADMIN_EMAIL: this is not an e-mail address"),
    ],
)
@pytest.mark.one_database
def test_a_first_admin_who_cannot_be_made_is_reported_in_one_line_that_names_the_setting(
    database_url: str, email: str, password: str, line: str
) -> None:
    status, said = seed(database_url, ADMIN_EMAIL=email, ADMIN_PASSWORD=password)
    assert status == 1
    assert said.splitlines()[-1].startswith(line)
    assert admins(database_url) == []


def test_the_first_admin_of_the_settings_may_be_an_account_with_that_password(serve: Callable[..., Muster]) -> None:
    muster = serve()
    ada = muster.new_account()
    status, said = seed(muster.database_url, ADMIN_EMAIL=ada.email, ADMIN_PASSWORD="another-" + PASSWORD)
    assert status == 1
    assert said.splitlines()[-1].startswith("muster: ADMIN_EMAIL: this account exists, and ADMIN_PASSWORD is not its")
    assert admins(muster.database_url) == []
    assert seed(muster.database_url, ADMIN_EMAIL=ada.email, ADMIN_PASSWORD=PASSWORD)[0] == 0
    assert_is_admin(muster, ada.email)
