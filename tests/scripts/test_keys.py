"""scripts/keys: following its steps signs nobody out; and no private key is ever shown."""

import re
import stat
from pathlib import Path

import pytest

from tests.support.bearer_tokens import header_of
from tests.support.commands import fork, run
from tests.support.databases import SECRET_KEY, fresh_database
from tests.support.rsa_keys import key_file
from tests.support.servers import Muster
from tests.support.sessions import assert_lives

pytestmark = pytest.mark.one_database


def steps(output: str, setting: str) -> list[str]:
    """The values that the script wants the setting to have, step by step."""
    found = re.findall(rf"^  \d\. .*?{setting}=(\S+)$", output, re.MULTILINE)
    assert len(found) == 3, output
    return found


@pytest.mark.slow
def test_a_new_key_file_replaces_the_secret(folder: Path, postgres: str, tmp_path: Path) -> None:
    with fresh_database("sqlite", folder, postgres) as url, Muster(url, folder) as muster:
        phone = muster.new_account().tokens()
        made = fork("keys", "pem", "new.pem", folder=tmp_path, **muster.settings)
        assert made.returncode == 0, made.stderr
        assert "BEGIN" not in made.stdout
        assert stat.S_IMODE((tmp_path / "new.pem").stat().st_mode) == 0o600
        first, second, third = steps(made.stdout, "JWT_PRIVATE_KEY_FILES")
        assert re.findall(r"after (\d+ \w+) \(", made.stdout) == ["5 minutes", "11 minutes"]
        assert (first, second, third) == (f"HS256,{third}", f"{third},HS256", str(tmp_path / "new.pem"))
        for step in (first, second, third):
            muster.restart(JWT_PRIVATE_KEY_FILES=step)
            assert muster.me(phone).status_code == 200, step
            phone = assert_lives(muster, phone)


@pytest.mark.slow
def test_a_new_secret_is_shown_once_and_the_old_one_not_at_all() -> None:
    made = fork("keys", "secret", SECRET_KEYS="an-old-secret-of-these-tests-0123456789")
    first, second, third = steps(made.stdout, "SECRET_KEYS")
    assert (first, second) == (f"OLD,{third}", f"{third},OLD")
    assert "after 60 days (twice REFRESH_IDLE_TTL" in made.stdout
    assert len(third) == 64
    assert "an-old-secret" not in made.stdout + made.stderr
    assert steps(fork("keys", "secret").stdout, "SECRET_KEYS")[2] != third
    short = fork("keys", "secret", REFRESH_IDLE_TTL="P30D", REFRESH_ABSOLUTE_TTL="P40D")
    assert "after 40 days (" in short.stdout


@pytest.mark.slow
def test_the_script_makes_the_first_secret_of_production_too() -> None:
    made = fork("keys", "secret", ENVIRONMENT="production", SECRET_KEYS="", PUBLIC_URL="https://muster.example")
    assert made.returncode == 0
    assert re.search(r"^SECRET_KEYS=[\w-]{64}$", made.stdout, re.MULTILINE)


@pytest.mark.slow
def test_settings_that_are_wrong_are_named_and_no_secret_is_made() -> None:
    """A new secret would look as if it were the first one, and sign everybody out."""
    made = fork("keys", "secret", ENVIRONMENT="production", PUBLIC_URL="https://muster.example", MAIL_URL="outbox")
    assert (made.returncode, made.stdout) == (1, "")
    assert "MAIL_URL" in made.stderr


@pytest.mark.slow
def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    refused = run("keys", "pem", "key.pem", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"muster: {tmp_path}/key.pem: File exists\n"
    assert (tmp_path / "key.pem").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


@pytest.mark.slow
def test_the_list_tells_secrets_apart_by_the_kid_of_their_tokens(muster: Muster) -> None:
    other = "another-secret-of-these-tests-0123456789"
    first, second = (
        re.findall(r"^SECRET_KEYS: kid (\w+), (\w+)", fork("keys", "list", SECRET_KEYS=keys).stdout, re.MULTILINE)
        for keys in (f"{SECRET_KEY},{other}", f"{other},{SECRET_KEY}")
    )
    assert [use for _, use in first] == [use for _, use in second] == ["signs", "verifies"]
    assert [kid for kid, _ in first] == [kid for kid, _ in reversed(second)]
    assert header_of(muster.new_account().tokens().access)["kid"] == first[0][0]


@pytest.mark.slow
def test_the_list_names_what_signs_and_shows_no_key(tmp_path: Path) -> None:
    assert fork("keys", "list").stdout.splitlines()[1:] == ["HS256: signs access tokens"]
    file = key_file(tmp_path, "listed")
    lines = fork("keys", "list", JWT_PRIVATE_KEY_FILES=f"{file},HS256").stdout.splitlines()
    assert re.fullmatch(rf"{file}: RS256, kid [\w-]{{43}}, signs access tokens", lines[1])
    assert lines[2:] == ["HS256: verifies"]
    assert SECRET_KEY not in fork("keys", "list").stdout
