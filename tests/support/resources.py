"""Helpers for tests of lists and rows: API calls, all pages of a list, and new heroes, teams and tasks."""

import json
import re
from typing import Any
from uuid import uuid4

import httpx

from tests.support.servers import Muster, Tokens


def call(muster: Muster, tokens: Tokens, method: str, path: str, body: Any = None) -> httpx.Response:
    content = None if body is None else json.dumps(body)  # escapes lone surrogates, which httpx cannot encode
    headers = {"Content-Type": "application/json", **tokens.bearer}
    return muster.client.request(method, f"/api{path}", content=content, headers=headers)


def pages(muster: Muster, tokens: Tokens, path: str) -> list[list[dict[str, Any]]]:
    """Every page of a list, by following its Link headers."""
    found, url = [], f"{muster.url}/api{path}"
    while url:
        answer = muster.client.get(url, headers=tokens.bearer)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        link = answer.headers.get("link")
        assert link is None or re.fullmatch(r'<[^>]+>; rel="next"', link)
        url = answer.links.get("next", {}).get("url", "")
        assert answer.headers.get("next-cursor") == httpx.URL(url).params.get("after")
    return found


def unique(name: str) -> str:
    return f"{name} {uuid4().hex}"


def new_hero(muster: Muster, tokens: Tokens, **fields: Any) -> dict[str, Any]:
    return _made(call(muster, tokens, "POST", "/heroes", {"name": unique("Hero"), "secret_name": "Pedro", **fields}))


def new_team(muster: Muster, tokens: Tokens, **fields: Any) -> dict[str, Any]:
    return _made(call(muster, tokens, "POST", "/teams", {"name": unique("Team"), "headquarters": "Tower", **fields}))


def new_task(muster: Muster, tokens: Tokens, **fields: Any) -> dict[str, Any]:
    return _made(call(muster, tokens, "POST", "/tasks", {"title": "Water the plants", **fields}))


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body
