"""Apps below the lowest supported version are refused with a 426 everywhere, but can sign out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import fresh_database
from tests.support.servers import Muster, Tokens
from tests.support.sockets import Socket

pytestmark = pytest.mark.one_database


@pytest.fixture(scope="module")
def served(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, MIN_CLIENT_VERSIONS="iOS/1.4.0, android/2.10") as muster,
    ):
        yield muster


@pytest.fixture(scope="module")
def tokens(served: Muster) -> Tokens:
    return served.new_account().tokens()


@pytest.mark.parametrize("version", ["ios/1.4.0", "ios/1.4", "ios/1.10.0", "IOS/2", "android/2.10.1", "web/0.1", None])
def test_a_supported_version_is_served(served: Muster, tokens: Tokens, version: str | None) -> None:
    headers = tokens.bearer | ({"Client-Version": version} if version else {})
    assert served.client.get("/api/users/me", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("version", "minimum"), [("ios/1.3.9", "1.4.0"), ("ios/1", "1.4.0"), ("Android/2.9.5", "2.10")]
)
def test_an_older_version_is_a_426_that_names_the_lowest(
    served: Muster, tokens: Tokens, version: str, minimum: str
) -> None:
    for path in ("/api/users/me", "/api/operations", "/api/nowhere", "/api/openapi.json"):
        refused = served.client.get(path, headers=tokens.bearer | {"Client-Version": version})
        assert (refused.status_code, refused.json()["type"]) == (426, "/problems/app-too-old")
        assert refused.json()["platform"] == version.partition("/")[0].lower()
        assert refused.json()["minimum_version"] == minimum


def test_sockets_and_streams_are_closed_to_an_older_version_with_a_sentence_to_show(
    served: Muster, tokens: Tokens
) -> None:
    def headers(version: str) -> dict[str, str]:
        return tokens.bearer | {"Client-Version": version}

    stream = served.client.get("/api/chat/events", headers=headers("ios/1.0"))
    assert (stream.status_code, stream.json()["type"]) == (426, "/problems/app-too-old")
    with Socket(served, headers=headers("ios/1.0")) as socket:
        assert socket.closed() == 4426
        assert socket.connection.close_reason == stream.json()["detail"]
    with Socket(served, headers=headers("ios")) as socket:
        assert socket.closed() == 1008
    with Socket(served, headers=headers("ios/1.4")) as socket:
        socket.ready()
    with Socket(served, tokens) as socket:
        socket.ready()


def test_the_refusal_at_the_token_endpoint_does_not_read_as_signed_out(served: Muster, tokens: Tokens) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh}
    refused = served.client.post("/api/auth/token", data=form, headers={"Client-Version": "ios/1.0"})
    assert refused.status_code == 426
    assert refused.json()["error"] == "temporarily_unavailable"
    assert refused.json()["minimum_version"] == "1.4.0"


def test_an_old_version_signs_out_and_health_answers(served: Muster) -> None:
    old, tokens = {"Client-Version": "ios/1.0"}, served.new_account().tokens()
    assert served.client.get("/health/live", headers=old).status_code == 200
    assert served.client.post("/api/auth/revoke", data={"token": tokens.refresh}, headers=old).status_code == 200
    assert served.me(tokens).status_code == 401


@pytest.mark.slow
def test_every_other_route_refuses_an_old_version_and_documents_it(served: Muster) -> None:
    refusing: set[str] = set()
    documented: set[str] = set()
    open_to_all: set[str] = set()
    for path, methods in served.client.get("/api/openapi.json").json()["paths"].items():
        for method, described in methods.items():
            answer = served.client.request(method, path, headers={"Client-Version": "ios/1.0"})
            (refusing if answer.status_code == 426 else open_to_all).add(f"{method} {path}")
            documented |= {f"{method} {path}"} if "426" in described["responses"] else set()
    assert refusing == documented
    assert {path.partition(" ")[2] for path in open_to_all} == {
        "/api/auth/revoke",
        "/api/auth/cookie/logout",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


@pytest.mark.parametrize("version", ["", "ios", "ios/", "ios/1.x", "ios/1.2.3.4.5", "1.4.2", "ios/" + "9" * 10])
def test_a_malformed_version_is_a_400(served: Muster, tokens: Tokens, version: str) -> None:
    refused = served.client.get("/api/users/me", headers=tokens.bearer | {"Client-Version": version})
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/bad-request")
