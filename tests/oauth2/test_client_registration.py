"""OAuth clients: who may register an app, and where its codes may go."""

import os
from uuid import uuid4

import pytest

from app.models.oauth_client import OAuthClient
from tests.support.assertions import assert_problem
from tests.support.databases import ROOT
from tests.support.processes import fork_script
from tests.support.servers import Muster, Tokens

pytestmark = pytest.mark.one_database

GOOD = [
    "https://app.example.com/signed-in",
    "https://app.example.com:8443/cb?from=muster",
    "com.example.app:/signed-in",
    "com.example.app://signed-in",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:4000/cb",
    "http://[::1]/cb",
]
BAD = {
    "a fragment": "https://app.example.com/cb#top",
    "http elsewhere": "http://app.example.com/cb",
    "localhost, which DNS decides about": "http://localhost/cb",
    "a host that begins like loopback": "http://127.0.0.1.evil.example/cb",
    "a user before the host": "http://127.0.0.1:80@evil.example/cb",
    "a user in https": "https://app.example.com@evil.example/cb",
    "a scheme without a dot": "myapp:/cb",
    "a script": "javascript:alert(1)",
    "no scheme": "/cb",
    "no host": "https:///cb",
    "a space": "https://app.example.com/a b",
    "a backslash": "https://app.example.com\\@evil.example/",
    "a line break": "https://app.example.com/\r\nX: y",
    "a trailing line break": "https://app.example.com/\n",
    "not ASCII": "https://ápp.example.com/",
    "empty": "",
    "too long": f"https://app.example.com/{'a' * 500}",
}


def body(**values: object) -> dict[str, object]:
    return {"id": f"app-{uuid4().hex}", "name": "Ledger", "redirect_uris": ["com.example.app:/cb"], **values}


@pytest.mark.both_databases
def test_an_admin_registers_lists_changes_and_removes_a_client(muster: Muster, admin: Tokens) -> None:
    sent = body(redirect_uris=GOOD)
    created = muster.client.post("/api/clients", json=sent, headers=admin.bearer)
    assert created.status_code == 201, created.text
    assert {name: created.json()[name] for name in sent} == sent
    where = created.headers["location"]
    assert_problem(muster.client.post("/api/clients", json=sent, headers=admin.bearer), 409, "client-id-taken")
    changed = muster.client.patch(where, json={"name": "Ledger 2"}, headers=admin.bearer)
    assert changed.status_code == 200, changed.text
    assert (changed.json()["name"], changed.json()["redirect_uris"]) == ("Ledger 2", GOOD)
    listed = muster.client.get("/api/clients?limit=200", headers=admin.bearer).json()
    assert changed.json() in listed
    assert "swagger" in [each["id"] for each in listed]
    assert [each["id"] for each in listed] == sorted(each["id"] for each in listed)
    page = muster.client.get("/api/clients?limit=1", headers=admin.bearer)
    assert muster.client.get(page.links["next"]["url"], headers=admin.bearer).json()[0] == listed[1]
    assert muster.client.delete(where, headers=admin.bearer).status_code == 204
    for method in ("PATCH", "DELETE"):
        assert_problem(muster.client.request(method, where, json={}, headers=admin.bearer), 404, "client-not-found")


def test_a_client_whose_id_is_a_long_number_can_be_changed_and_removed(muster: Muster, admin: Tokens) -> None:
    where = f"/api/clients/{'7' * 100}"
    muster.client.post("/api/clients", json=body(id="7" * 100), headers=admin.bearer).raise_for_status()
    assert muster.client.patch(where, json={"name": "Ledger 2"}, headers=admin.bearer).json()["name"] == "Ledger 2"
    assert muster.client.delete(where, headers=admin.bearer).status_code == 204


@pytest.mark.parametrize("uri", BAD.values(), ids=BAD)
def test_a_redirect_uri_that_others_could_receive_is_refused(muster: Muster, admin: Tokens, uri: str) -> None:
    answer = muster.client.post("/api/clients", json=body(redirect_uris=[uri]), headers=admin.bearer)
    assert_problem(answer, 422, "invalid")


@pytest.mark.parametrize(
    "change", [{"id": "a b"}, {"id": ""}, {"id": "é"}, {"redirect_uris": []}, {"name": " "}], ids=str
)
def test_a_client_needs_an_id_a_name_and_a_redirect_uri(muster: Muster, admin: Tokens, change: dict[str, str]) -> None:
    answer = muster.client.post("/api/clients", json=body(**change), headers=admin.bearer)
    assert_problem(answer, 422, "invalid")


LOOPBACK = ["http://127.0.0.1/cb", "http://[::1]:4000/cb", "https://app.example.com:1/cb"]


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("http://127.0.0.1/cb", True),
        ("http://127.0.0.1:51234/cb", True),
        ("http://[::1]/cb", True),
        ("http://[::1]:51234/cb", True),
        ("https://app.example.com:1/cb", True),
        ("https://app.example.com:2/cb", False),
        ("https://app.example.com/cb", False),
        ("http://127.0.0.1:51234/cb/", False),
        ("http://127.0.0.1:51234/c", False),
        ("http://127.0.0.1:51234/cb#x", False),
        ("http://127.0.0.1:@evil.example/cb", False),
        ("http://127.0.0.1:1@evil.example/cb", False),
        ("http://127.0.0.1.evil.example/cb", False),
        ("http://localhost/cb", False),
        ("", False),
    ],
)
def test_a_redirect_uri_is_compared_exactly_but_for_the_port_of_this_device(uri: str, allowed: bool) -> None:
    assert OAuthClient(id="a", name="A", redirect_uris=LOOPBACK).allows(uri) == allowed


@pytest.mark.both_databases
@pytest.mark.slow
def test_the_operator_registers_a_client_and_changes_it(muster: Muster) -> None:
    client_id = f"app-{uuid4().hex}"

    def seed(*arguments: str) -> tuple[int, str]:
        return fork_script(ROOT / "scripts" / "seed.py", *arguments, environment={**os.environ, **muster.settings})

    status, said = seed("--client", client_id, "--redirect-uri", "com.example.app:/cb")
    assert (status, "client-registered" in said) == (0, True)
    both = ("--redirect-uri", "com.example.app:/cb", "--redirect-uri", "http://127.0.0.1/cb")
    status, said = seed("--client", client_id, *both, "--name", "Ledger")
    assert (status, "client-changed" in said) == (0, True)
    row = muster.sql("SELECT name, redirect_uris FROM oauth_client WHERE id = :id", id=client_id)[0]
    assert (row[0], "127.0.0.1" in str(row[1])) == ("Ledger", True)
    status, said = seed("--client", client_id, "--redirect-uri", "http://example.com/")
    assert (status, "127.0.0.1" in said, "Traceback" in said) == (1, True, False)
    assert seed("--client", client_id)[0] == 2
