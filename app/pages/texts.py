"""The pages' sentences for people, from texts.toml: by notice, by problem type of the API, by field."""

import tomllib
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

_texts: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
NOTICES: dict[str, str] = _texts["notices"]
PROBLEMS: dict[str, tuple[str, str]] = _texts["problems"]
SIGN_IN: dict[str, str] = _texts["sign-in"]
FIELDS: dict[str, str] = _texts["fields"]
EVENTS: dict[str, str] = _texts["events"]

OTHER_ADDRESS = "This is not the address of this account."
CORRECT_FIELDS = "Please correct the highlighted fields and try again."
# The API words these for people: what a password needs, in numbers, and where a period ends.
_WORDED_BY_API = {"password_too_short", "password_too_long", "password_too_common", "period_backwards"}
_FIELD_OF_PROBLEM = {"wrong-password": "current_password"}


def describe(kind: str, *, retry_after: str | None = None, ticket: str | None = None) -> tuple[str, str]:
    """The heading and the sentence for a problem type."""
    heading, sentence = PROBLEMS.get(kind, PROBLEMS["other"])
    return heading, sentence.format(wait=_wait(retry_after), ticket=ticket)


def describe_fields(kind: str, problem: Mapping[str, Any]) -> dict[str, str]:
    """A sentence for each field that a problem document names."""
    if "line" in problem:  # of an imported file: the API says which and why
        return {"lines": str(problem["detail"])}
    errors: dict[str, str] = {}
    for error in problem.get("errors", []):
        name = str(error["loc"][:2][-1])  # "body" or "query" stands before it
        text = error["msg"] if error["type"] in _WORDED_BY_API else FIELDS.get(name, FIELDS["other"])
        errors.setdefault(name, text)
    if field := _FIELD_OF_PROBLEM.get(kind, problem.get("field")):
        errors[field] = describe(kind)[1]
    return errors


def _wait(retry_after: str | None) -> str:
    """The seconds of a Retry-After header in words."""
    seconds = int(retry_after) if retry_after and retry_after.isdecimal() else 0
    if seconds < 10:
        return "a moment"
    if seconds <= 90:
        return f"{seconds} seconds"
    minutes = ceil(seconds / 60)
    return f"{minutes} minutes" if minutes <= 90 else f"{ceil(minutes / 60)} hours"
