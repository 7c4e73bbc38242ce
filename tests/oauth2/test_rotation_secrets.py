"""Tokens and secrets: forged tokens, what a dump gives away, and keys that change (rows R10, R12 and R13)."""

from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.databases import SECRET_KEY
from tests.support.redis_server import RedisServer
from tests.support.servers import PASSWORD, Account, Muster, Tokens, wait_for
from tests.support.sessions import (
    BEYOND_GRACE,
    assert_lives,
    assert_signed_out,
    is_refused,
    make_older,
    refreshed,
    row_of,
    sign_refresh,
)
from tests.support.workers import Worker


@pytest.fixture
def ada(muster: Muster) -> Account:
    return muster.new_account()


# ---- Forged tokens: R10 ----


def flipped(token: str, bit: int) -> str:
    raw = bytearray(urlsafe_b64decode(token))
    raw[bit // 8] ^= 1 << bit % 8
    return urlsafe_b64encode(raw).decode()


@pytest.mark.one_database
@pytest.mark.slow
def test_a_token_with_any_one_bit_flipped_is_refused_and_changes_nothing(muster: Muster, ada: Account) -> None:
    phone = refreshed(muster, refreshed(muster, ada.tokens()))
    before = row_of(muster, phone)
    for bit in range(54 * 8):
        assert is_refused(muster.refresh(flipped(phone.refresh, bit))), bit
    assert row_of(muster, phone) == before
    assert_lives(muster, phone)


MALFORMED: dict[str, Callable[[str], str]] = {
    "one character fewer": lambda token: token[:-1],
    "four characters fewer": lambda token: token[:-4],
    "one character more": lambda token: token + "A",
    "four characters more": lambda token: token + "AAAA",
    "padding after it": lambda token: token + "=",
    "padding in it": lambda token: token[:-1] + "=",
    "a character of base64 alone": lambda token: token[:-1] + "+",
    "an accent": lambda token: token[:-1] + "é",
    "a line feed": lambda token: token + "\n",
    "a space": lambda token: " " + token,
    "twice": lambda token: token * 2,
}


@pytest.mark.parametrize("forge", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_token_is_refused_and_changes_nothing(
    muster: Muster, ada: Account, forge: Callable[[str], str]
) -> None:
    phone = ada.tokens()
    before = row_of(muster, phone)
    assert is_refused(muster.refresh(forge(phone.refresh)))
    assert row_of(muster, phone) == before


def test_another_client_id_is_refused_and_changes_nothing(muster: Muster, ada: Account) -> None:
    phone = ada.sign_in(client_id="phone")
    second = refreshed(muster, phone)
    refreshed(muster, second)
    before = row_of(muster, phone)
    for pair in (phone, second):
        assert is_refused(muster.refresh(pair.refresh, client_id="tablet"))
    assert row_of(muster, phone) == before
    assert muster.refresh(second.refresh, client_id="phone").status_code == 200


def test_a_session_goes_on_from_a_token_ahead_of_a_restored_database(muster: Muster, ada: Account) -> None:
    phone = ada.tokens()
    ahead = Tokens({**phone, "refresh_token": sign_refresh(row_of(muster, phone), 8)})
    successor = refreshed(muster, ahead)
    row = row_of(muster, phone)
    assert (row.parent_generation, row.generation, row.confirmed) == (8, 9, False)
    assert refreshed(muster, ahead).refresh == successor.refresh
    newest = assert_lives(muster, successor)
    assert is_refused(muster.refresh(phone.refresh))
    assert_signed_out(muster, phone, ahead, successor, newest)


# ---- Dumps and logs: R12 ----


@pytest.mark.slow
def test_no_dump_and_no_log_holds_a_token_or_its_mac(serve: Callable[..., Muster], tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        muster = serve(ENVIRONMENT="development", REDIS_URL=redis.url)
        with Worker(muster, app="app.worker") as worker:
            ada, issued = live_a_little(muster)
        assert muster.client.post("/api/auth/forgot-password", json={"email": ada.email}).status_code == 202
        wait_for(lambda: redis.holds("high"), what="a message that waits")
        kept_in_redis = dump_redis(redis.url)
    needles = [needle for token in issued for needle in forms_of(token)]
    database = dump_database(muster)
    assert row_of(muster, Tokens(access_token=issued[0])).secret.hex().encode() in database  # the dump is a real one
    assert b"reset" in database  # the rows of the mails' jobs too
    for place in (database, muster.log_file.read_bytes(), worker.log_file.read_bytes(), kept_in_redis):
        assert [needle for needle in needles if needle in place] == []
    assert b"muster" in kept_in_redis
    assert ada.email not in worker.log + muster.log
    assert b"token-reused" in muster.log_file.read_bytes()
    assert ada.email.partition("@")[0].encode() not in kept_in_redis


def live_a_little(muster: Muster) -> tuple[Account, list[str]]:
    """An account with all kinds of tokens, mails, errors and a theft; every token that was given out."""
    ada = muster.register()
    phone, laptop = ada.tokens(), ada.tokens()
    pairs = [phone, second := refreshed(muster, phone), refreshed(muster, second), laptop]
    pairs.extend(laptop := assert_lives(muster, laptop) for _ in range(5))
    misuse(muster, laptop)
    make_older(muster, phone, age=BEYOND_GRACE)
    assert is_refused(muster.refresh(phone.refresh))

    change = {"email": "new." + ada.email, "current_password": PASSWORD}
    assert muster.client.put("/api/users/me/email", json=change, headers=laptop.bearer).status_code == 202
    assert muster.client.post("/api/auth/forgot-password", json={"email": ada.email}).status_code == 202
    links = [
        muster.link_token(ada.email, subject="Confirm your e-mail"),
        muster.link_token(change["email"], subject="Confirm your new"),
        muster.link_token(ada.email, subject="Reset"),
    ]
    assert muster.client.post("/api/auth/verify-email", json={"token": links[0]}).status_code == 204
    body = {"current_password": PASSWORD, "new_password": "another-" + PASSWORD}
    changed = muster.client.put("/api/users/me/password", json=body, headers=laptop.bearer)
    assert changed.status_code == 200
    reset = {"token": links[2], "new_password": PASSWORD}
    assert muster.client.post("/api/auth/reset-password", json=reset).status_code == 400
    pairs.append(Tokens(changed.json()))
    return ada, [token for pair in pairs for token in (pair.access, pair.refresh)] + links


def misuse(muster: Muster, tokens: Tokens) -> None:
    """Tokens where they do not belong: each request fails, and none may end up in the log."""
    client, wrong = muster.client, [tokens.access, tokens.refresh]
    for token in wrong:
        assert client.get("/api/users/me", params={"access_token": token}).status_code == 401
        assert client.post("/api/auth/token", params={"refresh_token": token}).status_code == 400
        assert client.post("/api/auth/token", json={"refresh_token": token}).status_code == 400
        assert client.post("/api/auth/verify-email", json={"token": token, "more": token}).status_code == 422
        assert client.get(f"/api/{token}").status_code == 404
        assert client.delete(f"/api/users/me/sessions/{token}", headers=tokens.bearer).status_code == 422
        assert client.get("/api/users/me/sessions", params={"after": token}, headers=tokens.bearer).status_code == 422
        assert client.get("/api/users/me", headers={"Authorization": f"Bearer {token}x"}).status_code == 401


def forms_of(token: str) -> list[bytes]:
    """The token, and its MAC alone as bytes, as bytes that Python prints, in hex, in base64."""
    is_jwt = token.count(".") == 2
    signature = token.rpartition(".")[2] if is_jwt else token
    raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    mac = raw if is_jwt else raw[22:]
    printed = [token, signature[-40:], repr(mac)[2:-1], mac.hex(), mac.hex().upper()]
    encoded = [b64encode(mac).rstrip(b"="), urlsafe_b64encode(mac).rstrip(b"=")]
    return [mac, *encoded, *[text.encode() for text in printed]]


def dump_database(muster: Muster) -> bytes:
    """Every byte of the SQLite files, with the secrets of the rows in hex as well; every row of PostgreSQL as text."""
    if muster.on_sqlite:
        path = Path(muster.database_url.removeprefix("sqlite:///"))
        files = [path, path.with_name(path.name + "-wal")]
        secrets = muster.sql("SELECT lower(hex(secret)) AS secret FROM refresh_token")
        return b"".join([file.read_bytes() for file in files] + [row.secret.encode() for row in secrets])
    tables = muster.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    # Our own tables. A row's repr() would be cut short.
    rows = [muster.sql(f'SELECT t::text AS row FROM "{table.tablename}" t') for table in tables]  # noqa: S608
    return "\n".join(row.row for row in chain(*rows)).encode()


def dump_redis(url: str) -> bytes:
    """Every key with its value."""
    with redis.Redis.from_url(url) as client:
        reading: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"hash": client.hgetall,
            b"set": client.smembers,
        }
        keys: Any = client.keys()
        kinds: list[Any] = [client.type(key) for key in keys]
        return repr([(key, reading[kind](key)) for key, kind in zip(keys, kinds, strict=True)]).encode()


# ---- Keys that change: R13 ----


@pytest.mark.one_database
@pytest.mark.slow
def test_tokens_are_valid_while_their_key_is_in_the_list(serve: Callable[..., Muster]) -> None:
    old, new = SECRET_KEY, SECRET_KEY[::-1]
    muster = serve()
    ada = muster.new_account()
    phone, idle_tablet = ada.tokens(), ada.tokens()

    muster.restart(SECRET_KEYS=f"{old},{new}")
    assert muster.me(idle_tablet).status_code == 200
    phone = assert_lives(muster, phone)

    muster.restart(SECRET_KEYS=f"{new},{old}")
    assert muster.me(idle_tablet).status_code == 200
    successor = assert_lives(muster, phone)
    assert successor.refresh != phone.refresh

    muster.restart(SECRET_KEYS=new)
    assert_signed_out(muster, idle_tablet, phone)
    assert_lives(muster, successor)
