"""Assertions about errors, each in the form of its endpoint."""

import re

import httpx


def assert_problem(answer: httpx.Response, status: int, kind: str) -> None:
    """The response is a problem (RFC 9457) of this kind, and its detail is a sentence."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body = answer.json()
    assert (body["type"], body["status"]) == (f"/problems/{kind}", status)
    assert body["title"]
    assert body["detail"].endswith(".")


def assert_oauth_error(answer: httpx.Response, status: int, error: str) -> None:
    """The response is an error by RFC 6749 section 5.2, with the headers of section 5.1."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    body = answer.json()
    assert body["error"] == error
    assert body["detail"] == body["error_description"]
    assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", body["error_description"])
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")


def assert_limited(answer: httpx.Response, kind: str, policy: str) -> None:
    """The response is a 429 in the endpoint's own form, with Retry-After and the RateLimit fields; `policy` is such as
    "q=2;w=60"."""
    if answer.url.path in {"/api/auth/token", "/api/auth/introspect"}:
        assert_oauth_error(answer, 429, "temporarily_unavailable")
    else:
        assert_problem(answer, 429, "too-many-requests")
    seconds = int(answer.headers["retry-after"])
    assert 0 < seconds <= int(policy.partition("w=")[2])
    assert answer.headers["ratelimit-policy"] == f'"{kind}";{policy}'
    assert answer.headers["ratelimit"] == f'"{kind}";r=0;t={seconds}'
