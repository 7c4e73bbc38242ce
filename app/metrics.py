"""Counters of what happened in this process: a name, labels, a number."""

from collections import Counter
from threading import Lock

_counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
_lock = Lock()  # `+=` on a shared counter is not atomic between threads


def count(name: str, **labels: str) -> None:
    """Add one. Labels are few and fixed words: never an id, an address or a path."""
    with _lock:
        _counts[name, tuple(sorted(labels.items()))] += 1


def value(name: str, **labels: str) -> int:
    """How often `count` was called with exactly this name and these labels."""
    return _counts[name, tuple(sorted(labels.items()))]
