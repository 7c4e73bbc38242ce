"""Heroes: who sees and changes them, the order of the list, and invalid bodies, ids and cursors."""

from typing import Any
from unicodedata import normalize
from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.support.assertions import assert_problem
from tests.support.resources import call, new_hero, pages, unique
from tests.support.servers import Muster, Tokens

WRITER = "heroes:read heroes:write"


def test_a_hero_is_created_read_changed_and_deleted(muster: Muster, admin: Tokens) -> None:
    body = {"name": unique("Deadpond"), "secret_name": "Dive Wilson", "age": 48}
    made = call(muster, admin, "POST", "/heroes", body)
    assert (made.status_code, made.json()) == (201, {**body, "id": made.json()["id"]})
    path = f"/heroes/{made.json()['id']}"
    assert made.headers["location"] == f"/api{path}"
    assert call(muster, admin, "GET", path).json() == made.json()
    changed = call(muster, admin, "PATCH", path, {"age": None, "secret_name": "Wade"})
    assert (changed.status_code, changed.json()) == (200, {**made.json(), "age": None, "secret_name": "Wade"})
    assert call(muster, admin, "GET", path).json() == changed.json()
    gone = call(muster, admin, "DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "PATCH", "DELETE"):
        assert_problem(call(muster, admin, method, path, {}), 404, "hero-not-found")


def test_a_secret_name_is_absent_for_callers_who_may_not_see_it(muster: Muster, admin: Tokens, reader: Tokens) -> None:
    hero = new_hero(muster, admin)
    team = call(muster, admin, "POST", "/teams", {"name": unique("Preventers"), "headquarters": "Tower"}).json()
    call(muster, admin, "PUT", f"/heroes/{hero['id']}/teams/{team['id']}")
    public = {field: value for field, value in hero.items() if field != "secret_name"}
    only_writes = muster.admin().sign_in(scope=WRITER)
    for tokens in (reader, only_writes):
        for path in (f"/heroes/{hero['id']}", "/heroes?limit=200", f"/teams/{team['id']}/heroes"):
            answer = call(muster, tokens, "GET", path)
            assert answer.status_code == 200
            assert "secret_name" not in answer.text
            assert hero["secret_name"] not in answer.text
        assert call(muster, tokens, "GET", f"/heroes/{hero['id']}").json() == public
    assert call(muster, only_writes, "PATCH", f"/heroes/{hero['id']}", {"secret_name": "New"}).json() == public
    body = {"name": unique("Rusty"), "secret_name": "Tommy"}
    assert "secret_name" not in call(muster, only_writes, "POST", "/heroes", body).json()
    members = call(muster, admin, "GET", f"/teams/{team['id']}/heroes").json()
    assert [member["secret_name"] for member in members] == ["New"]


def test_openapi_says_that_a_secret_name_may_be_absent_and_is_never_null(muster: Muster) -> None:
    schemas = muster.client.get("/api/openapi.json").json()["components"]["schemas"]
    for name in ("HeroPublic", "HeroOfTeam"):
        assert "secret_name" not in schemas[name]["required"]
        field = schemas[name]["properties"]["secret_name"]
        assert (field["type"], "heroes:secrets" in field["description"]) == ("string", True)
    assert "secret_name" in schemas["HeroCreate"]["required"]
    location = muster.client.get("/api/openapi.json").json()["paths"]["/api/heroes"]["post"]["responses"]["201"]
    assert location["headers"]["Location"]["schema"] == {"type": "string"}


@pytest.mark.parametrize(("method", "path"), [("POST", "/heroes"), ("PATCH", "/heroes/1"), ("DELETE", "/heroes/1")])
def test_a_reader_changes_nothing(muster: Muster, reader: Tokens, method: str, path: str) -> None:
    answer = call(muster, reader, method, path, {})
    assert_problem(answer, 403, "insufficient-scope")
    assert answer.json()["scope"] == "heroes:write"


# ---- Names ----


def decomposed(name: str) -> str:
    """The name in Unicode form NFD, one code point longer."""
    assert normalize("NFD", name) != name
    return normalize("NFD", name)


def test_a_name_is_trimmed_and_in_one_form(muster: Muster, admin: Tokens) -> None:
    name = unique("Zoë")
    hero = new_hero(muster, admin, name="  " + decomposed(name) + "\u2003", secret_name=" a ")
    assert (hero["name"], hero["secret_name"]) == (name, "a")


def test_a_taken_name_is_a_conflict_that_names_the_field(muster: Muster, admin: Tokens) -> None:
    name = unique("Zoë")
    first, second = new_hero(muster, admin, name=name), new_hero(muster, admin)
    body = {"name": f" {decomposed(name)}", "secret_name": "x"}
    refused = [call(muster, admin, "POST", "/heroes", body)]
    refused.append(call(muster, admin, "PATCH", f"/heroes/{second['id']}", {"name": name, "age": 1}))
    for answer in refused:
        assert_problem(answer, 409, "hero-name-taken")
        assert answer.json()["field"] == "name"
    assert call(muster, admin, "GET", f"/heroes/{second['id']}").json() == second
    assert call(muster, admin, "PATCH", f"/heroes/{first['id']}", {"name": name}).json() == first


# ---- Bodies and addresses ----


def test_a_whole_number_may_be_written_with_a_decimal_point(muster: Muster, admin: Tokens) -> None:
    changed = call(muster, admin, "PATCH", f"/heroes/{new_hero(muster, admin)['id']}", {"age": 8.0})
    assert (changed.status_code, changed.json()["age"]) == (200, 8)


AGES: list[Any] = [-1, 10_001, 10**30, 1.5, True, "12", "x", []]
NAMES: list[Any] = [None, "", "  ", "a\0b", "\ud800", "a\nb", "x" * 101, "\u0958" * 51, 1, []]
WRONG = [
    *({"age": age} for age in AGES),
    *({"name": name} for name in NAMES),
    *({"secret_name": name} for name in NAMES[:4]),
    *({field: 1} for field in ("id", "team_id", "joined_at", "nonsense")),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ascii(wrong)[:40])
def test_a_wrong_field_is_refused_and_named_and_changes_nothing(
    muster: Muster, admin: Tokens, wrong: dict[str, Any]
) -> None:
    hero = new_hero(muster, admin)
    body = {"name": unique("Wrong"), "secret_name": "x", "age": 1, **wrong}
    path = f"/heroes/{hero['id']}"
    for answer in (call(muster, admin, "POST", "/heroes", body), call(muster, admin, "PATCH", path, wrong)):
        assert_problem(answer, 422, "invalid")
        assert answer.json()["errors"][0]["loc"] == ["body", *wrong]
    assert call(muster, admin, "GET", path).json() == hero


def test_an_empty_patch_writes_nothing(muster: Muster, admin: Tokens) -> None:
    hero = new_hero(muster, admin)
    with muster.engine.begin() as connection:
        # Any write changes SQLite's data_version; PostgreSQL's xmin is the version of this row.
        on_sqlite = connection.dialect.name == "sqlite"
        row = f"SELECT xmin FROM hero WHERE id = {hero['id']}"  # noqa: S608  # a number of ours
        version = text("PRAGMA data_version" if on_sqlite else row)
        before = connection.execute(version).scalar()
        answer = call(muster, admin, "PATCH", f"/heroes/{hero['id']}", {})
        assert (answer.status_code, answer.json()) == (200, hero)
        assert connection.execute(version).scalar() == before
        call(muster, admin, "PATCH", f"/heroes/{hero['id']}", {"age": 7})
        assert connection.execute(version).scalar() != before


@pytest.mark.parametrize(
    "hero_id",
    ["0", "-1", "x", "1.5", "1e3", "9223372036854775807", "9223372036854775808", "9" * 5000],
    ids=lambda hero_id: hero_id if len(hero_id) < 20 else f"{len(hero_id)} digits",
)
def test_an_invalid_id_is_a_404_or_a_422(muster: Muster, admin: Tokens, hero_id: str) -> None:
    kinds = {"9223372036854775807": "hero-not-found", "9" * 5000: "not-found"}
    expected = (404, kinds[hero_id]) if hero_id in kinds else (422, "invalid")
    for method in ("GET", "PATCH", "DELETE"):
        assert_problem(call(muster, admin, method, f"/heroes/{hero_id}", {"age": 1}), *expected)
    assert_problem(call(muster, admin, "GET", f"/heroes/{hero_id}/teams"), *expected)
    assert_problem(call(muster, admin, "PUT", f"/heroes/{hero_id}/teams/{hero_id}"), *expected)
    assert_problem(call(muster, admin, "DELETE", f"/heroes/{hero_id}/teams/{hero_id}"), *expected)


# ---- The list ----


def test_the_list_is_sorted_by_name_complete_and_without_duplicates_while_it_changes(
    muster: Muster, admin: Tokens
) -> None:
    mark = uuid4().hex
    # The last ones make the longest cursors: four bytes a character.
    names = [f"{mark}{end}" for end in ("B", "a", "b", "Ä", "z", "ß", "山", "\U0001f9b8" * 68)]
    for name in names[1:] + names[:1]:
        new_hero(muster, admin, name=name)
    seen = [hero["name"] for page in pages(muster, admin, "/heroes?limit=2") for hero in page]
    assert seen == sorted(seen)
    assert [name for name in seen if name.startswith(mark)] == sorted(names)

    first = call(muster, admin, "GET", "/heroes?limit=1")
    call(muster, admin, "DELETE", f"/heroes/{first.json()[0]['id']}")  # the row that the cursor names
    after = muster.client.get(first.links["next"]["url"], headers=admin.bearer).json()
    assert [hero["name"] for hero in after] == seen[1:2]


def test_a_cursor_is_valid_for_its_own_list_alone(muster: Muster, admin: Tokens) -> None:
    for _ in range(2):
        new_hero(muster, admin)
    cursor = call(muster, admin, "GET", "/heroes?limit=1").links["next"]["url"].partition("after=")[2]
    for query in (f"/teams?after={cursor}", f"/heroes?after={cursor}A", "/heroes?after=%00", "/heroes?limit=0"):
        assert_problem(call(muster, admin, "GET", query), 422, "invalid")
