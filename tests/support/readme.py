"""The conversation in README.md: what a reader types, and what is printed according to it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.databases import ROOT

# Each goes on where the one before ends.
HEADINGS = ("A first conversation", "Operations", "Heroes, teams and tasks", "Jobs", "Chat", "Other services")

# What differs from one conversation to the next.
_VARIES = re.compile(
    r"[\w.-]*…"  # a token that the README cuts short
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # an id
    r"|\d{4}-\d\d-\d\dT[\d:.]+Z"  # a time
    r"|[\w.-]{20,}"  # a token
)


@dataclass(frozen=True)
class Turn:
    """A block to type, and the block that follows it if that shows an answer."""

    typed: str
    answer: str | None
    is_json: bool


def conversation() -> list[Turn]:
    text = (ROOT / "README.md").read_text()
    section = "\n".join(text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] for heading in HEADINGS)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    turns = []
    for (language, typed), (follower, answer) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "sh":
            turns.append(Turn(typed, answer if follower in {"json", "text"} else None, follower == "json"))
    return turns


def is_as_shown(turn: Turn, printed: str) -> bool:
    """Whether the answer has the keys, the types and the constant values that the README shows."""
    if turn.answer is None:
        return '"/problems/' not in printed and '"error"' not in printed
    if turn.is_json:
        shown, ours = list(documents(turn.answer)), list(documents(printed))
        return len(shown) == len(ours) and all(map(alike, shown, ours))
    return masked(turn.answer) == masked(printed)


def documents(text: str) -> Iterator[object]:
    """The JSON documents that stand one after another in a text."""
    while text := text.lstrip():
        document, end = json.JSONDecoder().raw_decode(text)
        yield document
        text = text[end:]


def alike(shown: object, ours: object) -> bool:
    match shown, ours:
        case dict(), dict():
            return shown.keys() == ours.keys() and all(alike(shown[key], ours[key]) for key in shown)
        case list(), list():
            return len(shown) == len(ours) and all(map(alike, shown, ours))
        case str(), str():
            return masked(shown) == masked(ours)
    return type(shown) is type(ours) and shown == ours


def masked(text: str) -> str:
    return _VARIES.sub("…", text).strip()
