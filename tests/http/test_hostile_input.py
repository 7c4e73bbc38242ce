"""Hostile bodies and values: each is refused with a sentence, without repeating a secret or affecting others."""

import gzip
import json
import re
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from tests.support.hostile import (
    BODIES,
    FORM,
    JSON,
    OAUTH,
    SECRET,
    Target,
    assert_refused,
    bodies,
    each_string,
    targets,
)
from tests.support.servers import PASSWORD, Muster, Tokens

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.one_database, pytest.mark.slow]

DEEP = 10_000
LISTS = ("/api/users/me/sessions", "/api/users", "/api/users/{user_id}/sessions")

# In each, %s is replaced by the secret, so that the refused input contains it.
MALFORMED = {
    "a raw NUL": b'{"email": "a\x00b", "password": "%s"}',
    "a raw lone surrogate": b'{"email": "\xed\xa0\x80", "password": "%s"}',
    "invalid UTF-8": b'{"email": "\xff\xfe", "password": "%s"}',
    "Latin-1": 'é{"email": "é", "password": "%s"}'.encode("latin-1"),
    "a byte order mark inside": b'{\xef\xbb\xbf"email": "a", "password": "%s"}',
    "no JSON at all": b"password=%s",
    "half of it": b'{"password": "%s", "email": "a',
    "something behind it": b'{"password": "%s"} {}',
    "nothing": b"",
    "null": b"null",
    "a list": b'["%s"]',
    "a string": b'"%s"',
    "a number": b"1",
    "a number that is not whole": b"-2.5e-125",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"email": ' * DEEP + b"1" + b"}" * DEEP,
    "deep and never closed": b"[" * 500_000,
    "NaN": b'{"email": NaN, "password": "%s"}',
    "Infinity": b'{"email": -Infinity, "password": "%s"}',
    "a number beyond 64 bits": b'{"email": 123456789012345678901234567890, "password": "%s"}',
    "a number beyond a double": b'{"email": 1e999, "password": "%s"}',
    "a number of 5,000 digits": b'{"email": %s, "password": "%%s"}' % (b"9" * 5_000),
    "a field twice": b'{"password": "a", "password": "%s"}',
    "a field that does not exist": b'{"sudo": "%s"}',
    "a field named by a lone surrogate": b'{"\\ud800": "%s"}',
}
WRONG_TYPES = ["", "text/plain", FORM, "multipart/form-data", "application/xml", "\xff/\xfe", "json", "a" * 1000]


@pytest.fixture(scope="module")
def ada(muster: Muster) -> Tokens:
    return muster.register().sign_in()


@pytest.fixture(scope="module")
def every_target(muster: Muster) -> list[Target]:
    return targets(muster)


@pytest.fixture(scope="module")
def nullable(muster: Muster) -> set[str]:
    """The fields that may be null. `mail` may be only in a response."""
    schemas = muster.client.get("/api/openapi.json").json()["components"]["schemas"].values()
    fields = [field for schema in schemas for field in schema.get("properties", {}).items()]
    return {name for name, described in fields if "null" in described.get("type", [])} - {"mail"}


@pytest.mark.both_databases
def test_each_route_accepts_a_body_made_of_its_examples(muster: Muster) -> None:
    """The tests below alter these bodies: a body that is refused anyway would prove nothing."""
    made = {route: body for route, body in bodies(muster).items() if route not in BODIES}
    admin = muster.admin().tokens()
    for (method, path), body in made.items():
        answer = Target(method, re.sub(r"\{\w+\}", "1", path), body, admin).send(muster, json.dumps(body).encode())
        assert answer.status_code in {200, 201, 202, 204, 404, 409}, (
            f"{method} {path} refuses {body}: {answer.text}. Give the fields of its model examples that it accepts, or"
            " add a body to BODIES in tests/support/hostile.py"
        )


# ---- JSON ----


@pytest.mark.parametrize("number", range(len(MALFORMED)), ids=MALFORMED)
def test_a_body_that_is_not_valid_json_is_refused(muster: Muster, every_target: list[Target], number: int) -> None:
    """Each by a third of the routes, and each route has a third of them: one parser reads them all."""
    body = [*MALFORMED.values()][number]
    for target in every_target[number % 3 :: 3]:
        answer = target.send(muster, body.replace(b"%s", SECRET.encode()))
        assert_refused(answer, 400, 422)
        places = [error["loc"][0] for error in answer.json().get("errors", [])]
        assert "body" in (places or answer.json()["detail"])


@pytest.mark.parametrize("bad", ["\0", "\ud800", "\udfff\ud800"], ids=ascii)
def test_text_that_no_database_can_store_is_refused_in_every_field(
    muster: Muster, every_target: list[Target], bad: str
) -> None:
    for target in every_target:
        for body in each_string(target.body, lambda text: f"{text[:9]}{bad}{text[9:]}"):
            assert_refused(target.send(muster, json.dumps(body).encode()))


@pytest.mark.parametrize("wrong", [None, [], {}, 1.5, 10**30], ids=repr)
def test_an_invalid_value_is_refused_in_every_field(
    muster: Muster, every_target: list[Target], nullable: set[str], wrong: object
) -> None:
    for target in every_target:
        for field in target.body:
            if (wrong is not None or field not in nullable) and (field, wrong) != ("quantity", 1.5):
                answer = target.send(muster, json.dumps({**target.body, field: wrong}).encode())
                assert answer.status_code == 422, f"{target.path} takes {field}: {wrong}"
                assert_refused(answer)
                assert answer.json()["errors"][0]["loc"] == ["body", field]


@pytest.mark.parametrize("content_type", WRONG_TYPES, ids=lambda name: ascii(name)[:20])
def test_a_wrong_or_missing_content_type_is_refused_and_the_right_one_named(
    muster: Muster, every_target: list[Target], content_type: str
) -> None:
    for target in every_target:
        answer = target.send(muster, json.dumps(target.body).encode(), **{"Content-Type": content_type})
        assert_refused(answer, 415, 422)
        assert JSON in answer.json()["detail"]


def test_compressed_bodies_are_refused_and_never_expanded(muster: Muster, every_target: list[Target]) -> None:
    """A bomb of 20 MB is 20 kB on the wire; nothing here expands what a client sends."""
    bomb = gzip.compress(b'{"email": "' + b" " * 20_000_000 + b'"}', mtime=0)
    for target in every_target:
        for body in (bomb, gzip.compress(json.dumps(target.body).encode())):
            assert_refused(target.send(muster, body, **{"Content-Encoding": "gzip"}), 400, 415, 422)


def test_a_body_beyond_the_limit_is_a_413_everywhere(muster: Muster, every_target: list[Target]) -> None:
    body = json.dumps({"password": SECRET * 500_000}).encode()
    assert len(body) > 10_000_000
    for target in every_target:
        assert_refused(target.send(muster, body), 413)
    for path in OAUTH:
        assert_refused(muster.client.post(path, content=body, headers={"Content-Type": FORM}), 413)
    for path in ("/api/users/me", "/api/nowhere", "/health/live"):
        assert_refused(muster.client.request("GET", path, content=body), 413)


# ---- The OAuth endpoints ----


@pytest.mark.parametrize("path", OAUTH)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"token=%00&grant_type=password",
        b"token=%ED%A0%80&grant_type=password",
        b"\xef\xbb\xbfgrant_type=password",
        b"token=a&token=b&grant_type=a&grant_type=b",
        b'{"grant_type": "password", "token": "a"}',
        b"&".join([b"a=1"] * 10_000),
        b"grant_type=\xe2\x80\xae&scope=" + b"a" * 500_000,
        gzip.compress(b"grant_type=password&token=" + b" " * 10_000_000, mtime=0),
    ],
    ids=lambda body: ascii(body[:20]),
)
def test_a_hostile_form_is_refused_as_rfc_6749_says(muster: Muster, admin: Tokens, path: str, body: bytes) -> None:
    assert_refused(muster.client.post(path, content=body, headers={**admin.bearer, "Content-Type": FORM}), 400)


@pytest.mark.parametrize(
    "content_type", [JSON, *(name for name in WRONG_TYPES if name != FORM)], ids=lambda name: ascii(name)[:20]
)
def test_a_form_of_another_type_is_refused(muster: Muster, admin: Tokens, content_type: str) -> None:
    for path in OAUTH:
        headers = {
            b"Authorization": admin.bearer["Authorization"].encode(),
            b"Content-Type": content_type.encode("latin-1"),
        }
        assert_refused(muster.client.post(path, content=b"token=a&grant_type=a", headers=headers), 400)


@pytest.mark.parametrize("unit", ["a", "ﷺ", "\u0315\u0300"], ids=ascii)
@pytest.mark.parametrize("field", ["username", "password"])
def test_a_very_long_username_or_password_is_rejected_as_wrong(muster: Muster, field: str, unit: str) -> None:
    """Normalizing takes a time that grows with the square of the length: nothing this long may reach it."""
    form = {"grant_type": "password", "username": "ada@example.com", "password": SECRET, field: unit * 100_000}
    body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
    assert_refused(muster.client.post(OAUTH[0], content=body, headers={"Content-Type": FORM}), 400)


def test_a_password_that_normalization_makes_too_long_is_rejected_as_wrong(muster: Muster) -> None:
    tokens, body = muster.register().sign_in(), {"current_password": "ﷺ" * 1024}
    assert_refused(muster.client.request("DELETE", "/api/users/me", json=body, headers=tokens.bearer), 403, 422)


@pytest.mark.parametrize(
    "password",
    [
        "violet tandem 14268\n",
        "\u202eviolet\u202c tandem\t",
        "\r\n14268\n harbor tandem",
        "İſﬁǅ harbor 👩\u200d👧",
        "((4@8{[<369!1|$5+7%2))",
    ],
    ids=ascii,
)
def test_a_password_of_any_characters_is_accepted_and_signs_in(muster: Muster, password: str) -> None:
    assert muster.register(password=password).sign_in().access


# ---- Queries ----


@pytest.fixture(scope="module")
def admin(muster: Muster) -> Tokens:
    return muster.admin().tokens()


def lists(muster: Muster, admin: Tokens, query: str) -> list[httpx.Response]:
    me = muster.me(admin).json()["id"]
    return [muster.client.get(f"{path.format(user_id=me)}?{query}", headers=admin.bearer) for path in LISTS]


@pytest.mark.parametrize(
    "limit",
    ["-1", "0", "201", "-9223372036854775809", "9" * 30, "9" * 5000, "1e2", "1.5", "NaN", "Infinity", "%00", "%ff", ""],
    ids=lambda limit: limit if len(limit) < 25 else f"{len(limit)} digits",
)
def test_an_invalid_page_size_is_rejected(muster: Muster, admin: Tokens, limit: str) -> None:
    for answer in lists(muster, admin, f"limit={limit}"):
        assert_refused(answer, 422)
        assert "limit" in answer.json()["detail"]


@pytest.mark.parametrize(
    "cursor",
    ["A", "AAAA", "%00", "%ff", "é", "..%2f", "=", "null", "A" * 500, "A" * 501, "'--"],
    ids=lambda cursor: cursor if len(cursor) < 9 else f"{len(cursor)} characters",
)
def test_a_made_up_cursor_is_refused(muster: Muster, admin: Tokens, cursor: str) -> None:
    for answer in lists(muster, admin, f"after={quote(cursor, safe='%')}"):
        assert_refused(answer, 422)
        assert answer.json()["errors"][0]["loc"] == ["query", "after"]


def test_a_cursor_is_valid_only_unaltered_and_for_its_own_list(muster: Muster) -> None:
    account = muster.admin()
    account.sign_in()
    admin = account.sign_in()
    cursors = [answer.links["next"]["url"].partition("after=")[2] for answer in lists(muster, admin, "limit=1")]
    for position, cursor in enumerate(cursors):
        for other, answer in enumerate(lists(muster, admin, f"limit=1&after={cursor}")):
            if other == position:
                assert answer.status_code == 200
            else:
                assert_refused(answer, 422)
        altered = cursor[:5] + ("A" if cursor[5] != "A" else "B") + cursor[6:]
        for answer in lists(muster, admin, f"limit=1&after={altered}"):
            assert_refused(answer, 422)


def test_a_link_to_the_next_page_repeats_the_address_as_it_was_sent(muster: Muster, admin: Tokens) -> None:
    """A route takes the line break at the end of its address, which no header can hold."""
    muster.new_account()
    answer = muster.client.get("/api/users%0A?limit=1", headers=admin.bearer)
    assert (answer.status_code, answer.headers["link"].partition("?")[0]) == (200, "</api/users%0A")


# ---- Legal text ----


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "name",
    [
        "\u202eadA\u202c",
        "\u200fعدد\u200e",
        "\u2066אבג\u2069",
        "👩\u200d👩\u200d👧",
        "🏴\U000e0067\U000e007f",
        "O'; --",
        "𝒜𐍈",
    ],
    ids=ascii,
)
def test_legal_text_comes_back_unchanged(muster: Muster, name: str) -> None:
    account = muster.register(name=name)
    tokens = account.sign_in(device=name)
    assert muster.me(tokens).json()["name"] == name
    changed = muster.client.patch("/api/users/me", json={"name": f"{name} {name}"}, headers=tokens.bearer)
    assert changed.json()["name"] == f"{name} {name}"
    sessions = muster.client.get("/api/users/me/sessions", headers=tokens.bearer).json()
    assert [session["device"] for session in sessions] == [name]


def test_a_byte_order_mark_before_the_body_is_ignored(muster: Muster) -> None:
    """As RFC 8259 section 8.1 allows: some programs on Windows put one there."""
    body = json.dumps({"email": f"{uuid4().hex}@example.com", "password": PASSWORD}).encode()
    headers = {"Content-Type": JSON}
    assert muster.client.post("/api/auth/register", content=b"\xef\xbb\xbf" + body, headers=headers).status_code == 201
