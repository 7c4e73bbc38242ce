"""LOCAL_ACCOUNTS=off: password accounts are suspended, and only the identity provider signs people in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.assertions import assert_oauth_error, assert_problem
from tests.support.cookie_browser import Browser
from tests.support.hostile import BODIES
from tests.support.oidc_provider import OidcProvider
from tests.support.seeds import admins, seed
from tests.support.servers import Muster
from tests.support.sockets import Socket

pytestmark = pytest.mark.one_database

ISSUER = "https://provider.example"
OFF = {"LOCAL_ACCOUNTS": "off", "OIDC_ISSUER": ISSUER}
GONE = [
    ("POST", "/api/auth/register"),
    ("POST", "/api/auth/cookie/login"),
    ("POST", "/api/auth/forgot-password"),
    ("POST", "/api/auth/request-verification"),
    ("POST", "/api/auth/reset-password"),
    ("POST", "/api/auth/renew-link"),
    ("POST", "/api/auth/check-password"),
    ("POST", "/api/auth/verify-email"),
    ("PUT", "/api/users/me/password"),
    ("PUT", "/api/users/me/email"),
]
PAGES_GONE = ["/register", "/forgot-password", "/reset-password", "/verify-email"]


@pytest.fixture(scope="module")
def off(muster: Muster, provider: OidcProvider, folder: Path) -> Iterator[Muster]:
    """The same service on the same database, with the setting off; `muster` is the one where it is on."""
    same = {"PUBLIC_URL": f"http://localhost:{muster.port}", "MAIL_URL": muster.settings["MAIL_URL"]}
    with Muster(muster.database_url, folder, **{**same, **OFF, "OIDC_ISSUER": provider.issuer}) as served:
        yield served


# ---- Routes, grants and pages that do not exist ----


@pytest.mark.parametrize("route", GONE, ids=" ".join)
def test_the_routes_of_local_accounts_do_not_exist(off: Muster, route: tuple[str, str]) -> None:
    method, path = route
    assert_problem(off.client.request(method, path, json=BODIES.get(route, {})), 404, "not-found")


def test_openapi_omits_local_accounts(muster: Muster, off: Muster, provider: OidcProvider) -> None:
    on_schema, off_schema = (each.client.get("/api/openapi.json").json() for each in (muster, off))

    def routes(schema: dict[str, dict[str, dict[str, object]]]) -> set[tuple[str, str]]:
        return {(method.upper(), path) for path, operations in schema["paths"].items() for method in operations}

    assert routes(on_schema) - routes(off_schema) == {*GONE, ("POST", "/api/auth/token")}
    assert routes(off_schema) <= routes(on_schema)
    scheme = off_schema["components"]["securitySchemes"]["muster"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert provider.issuer in scheme["description"]
    assert "Register" not in off_schema["info"]["description"]


@pytest.mark.parametrize(
    "form",
    [{}, {"username": "ada@example.com", "password": "x"}, {"refresh_token": "A" * 72}],
    ids=["nothing", "a password", "a token"],
)
@pytest.mark.parametrize("grant", ["password", "refresh_token", "authorization_code"])
def test_no_grant_is_supported(off: Muster, grant: str, form: dict[str, str]) -> None:
    assert_oauth_error(off.token(grant_type=grant, **form), 400, "unsupported_grant_type")
    assert_oauth_error(off.token(**form), 400, "invalid_request")


def test_the_metadata_names_the_supported_grants(muster: Muster, off: Muster) -> None:
    path = "/.well-known/oauth-authorization-server"
    assert muster.client.get(path).json()["grant_types_supported"][-1] == "password"
    assert off.client.get(path).json()["grant_types_supported"] == []


@pytest.mark.parametrize("path", PAGES_GONE)
def test_the_pages_of_local_accounts_do_not_exist(off: Muster, path: str) -> None:
    assert off.client.get(path).status_code == off.client.post(path, data={}).status_code == 404


@pytest.mark.parametrize("path", ["/", "/sign-in", "/nowhere"])
def test_no_page_links_to_local_accounts(muster: Muster, off: Muster, path: str) -> None:
    assert any(gone in muster.client.get(path).text for gone in PAGES_GONE)
    shown = off.client.get(path).text
    assert not any(gone in shown for gone in [*PAGES_GONE, "password"])


# ---- Sessions of accounts that have a password ----


def test_local_tokens_are_suspended_while_off_and_work_again_when_on(muster: Muster, off: Muster) -> None:
    account = muster.new_account()
    tokens = account.sign_in()
    assert_problem(off.me(tokens), 401, "invalid-token")
    assert_oauth_error(off.refresh(tokens.refresh), 400, "unsupported_grant_type")
    assert muster.me(tokens).status_code == 200
    assert muster.refresh(tokens.refresh).status_code == 200


def test_cookies_and_sockets_of_local_accounts_are_refused_too(muster: Muster, off: Muster) -> None:
    account = muster.new_account()
    browser = Browser(muster).sign_in(account)
    there = Browser(off)
    there.cookie = browser.cookie
    assert there.call("GET", "/api/users/me").status_code == 401
    assert there.call("GET", "/operations").headers["location"].startswith("/sign-in?")
    with Socket(off, headers=account.sign_in().bearer) as dead:
        assert dead.closed() == 4401
    assert browser.call("GET", "/api/users/me").status_code == 200


def test_users_of_the_provider_are_served(muster: Muster, off: Muster, provider: OidcProvider) -> None:
    tokens = provider.sign_in(f"ada-{uuid4().hex}")
    assert off.me(tokens).json()["role"] == "user"
    assert_problem(muster.me(tokens), 401, "invalid-token")  # which knows no provider


# ---- The operator's commands ----


def without_local_accounts(url: str, *arguments: str) -> tuple[int, str]:
    return seed(url, *arguments, answer="violet-tandem-harbor\n", LOCAL_ACCOUNTS="off", OIDC_ISSUER=ISSUER)


@pytest.mark.slow
def test_the_settings_create_no_admin_because_that_admin_would_have_a_password(serve: Callable[..., Muster]) -> None:
    muster = serve(**OFF, ADMIN_EMAIL="first@example.com", ADMIN_PASSWORD="violet-tandem-harbor")
    assert muster.client.get("/sign-in").status_code == 200
    assert admins(muster.database_url) == []


@pytest.mark.slow
@pytest.mark.both_databases
def test_seed_makes_admins_only_of_people_who_have_signed_in(muster: Muster) -> None:
    status, said = without_local_accounts(muster.database_url, "--admin", "nobody@example.com")
    assert (status, said.splitlines()[-1]) == (
        1,
        "muster: LOCAL_ACCOUNTS=off: this person has to sign in at the identity provider first",
    )
    known = muster.new_account()
    assert without_local_accounts(muster.database_url, "--admin", known.email, "--unverified")[0] == 0
    assert known.email in admins(muster.database_url)


@pytest.mark.slow
def test_there_is_no_demo_account(database_url: str) -> None:
    status, said = without_local_accounts(database_url, "--demo")
    assert (status, said.splitlines()[-1][:23]) == (1, "muster: LOCAL_ACCOUNTS:")
