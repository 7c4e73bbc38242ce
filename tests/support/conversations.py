"""The shell blocks of a document: what a reader types, and the response that the document prints below it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases import ROOT

# The parts of a response that differ from one conversation to the next.
_VARIES = re.compile(
    r"[\w.-]*…"  # a token that the document cuts short
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # an id
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"  # a time
    r"|[\w.-]{20,}"  # a token
)
_EARLIEST = 1_700_000_000  # in seconds since the epoch: a number from here on is a time


@dataclass(frozen=True)
class Turn:
    """A block to type, and the block below it if that prints a response."""

    typed: str
    printed: str | None
    is_json: bool


def blocks_of(document: Path) -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def shown(language: str, document: Path = ROOT / "docs" / "clients.md") -> list[str]:
    """The blocks in one language."""
    return [text for name, text in blocks_of(document) if name == language]


def conversation(document: Path) -> list[Turn]:
    blocks, turns = blocks_of(document), []
    for (language, typed), (follower, printed) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "sh":
            turns.append(Turn(typed, printed if follower in {"json", "text"} else None, follower == "json"))
    return turns


def is_as_printed(turn: Turn, response: str) -> bool:
    """Whether the response has the keys, in their order, the types and the constant values of the document.

    It has to show something. A block with nothing printed below it must print nothing: otherwise an error or an empty
    list could hide there.
    """
    if turn.printed is None:
        return not response.strip()
    if turn.is_json:
        expected, actual = list(documents(turn.printed)), list(documents(response))
        return len(expected) == len(actual) and all(expected) and all(map(alike, expected, actual))
    return bool(response.strip()) and masked(turn.printed) == masked(response)


def documents(text: str) -> Iterator[object]:
    """The JSON documents that follow one another in a text."""
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


def alike(expected: object, actual: object) -> bool:
    match expected, actual:
        case dict(), dict():
            return [*expected] == [*actual] and all(alike(expected[key], actual[key]) for key in expected)
        case list(), list():
            is_long_enough = len(actual) >= len(expected) if expected[-1:] == ["…"] else len(actual) == len(expected)
            return is_long_enough and all(map(alike, expected, actual))
        case "…", str():
            return True
        case str(), str():
            goes_on = expected.endswith(" …") and actual.startswith(expected.removesuffix("…"))
            return goes_on or masked(expected) == masked(actual)
        case int(), int() if expected >= _EARLIEST:
            return actual >= _EARLIEST
    return type(expected) is type(actual) and expected == actual


def masked(text: str) -> str:
    return _VARIES.sub("…", text).strip()
