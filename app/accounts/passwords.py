"""Passwords: which are good enough, and Argon2id (RFC 9106) in threads that leave the rest of the service its time."""

import re
import unicodedata
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from passlib.context import CryptContext
from zxcvbn import zxcvbn

from app.core.concurrency import Bulkhead
from app.core.errors import Invalid

MAX_LENGTH = 128
# One thread a process: measured, a second one more than doubles the tail of everybody else's requests.
HASH_THREADS = 1
# Far above every password that the policy takes. Normalising sorts combining characters, which takes the square of
# their number: a body full of them would stop the process for minutes.
MAX_INPUT = 1024
# At 25 to 35 ms a hash the last in the queue waits about a second; beyond that a 503 is kinder.
HASH_QUEUE = 32
_ZXCVBN_LENGTH = 72  # its work grows faster than the length
_SIGNS = str.maketrans("@({[<!|$+%", "accccilstx")  # with the ten digits, what zxcvbn reads as letters
_MAX_READ_AS_LETTERS = 10  # kinds: at most 50 ms; all twenty of them took 2 s
_GUESSES_FLOOR = 2  # zxcvbn's score: below it fewer than a million guesses are enough

_context = CryptContext(
    schemes=["argon2"],
    argon2__type="ID",
    argon2__memory_cost=19456,
    argon2__time_cost=2,
    argon2__parallelism=1,
)

T = TypeVar("T")


def normalise(password: str) -> str:
    """NFKC, so that the same keys on another phone give the same password (NIST SP 800-63B section 3.1.1.2).

    Bounded before and after: some characters become eighteen. What is cut was no password that the policy takes.
    """
    return unicodedata.normalize("NFKC", password[:MAX_INPUT])[:MAX_INPUT]


def check_policy(password: str, *, min_length: int, related: Sequence[str], field: str) -> None:
    """Raise Invalid with the reason for a password that is too short, too long, common or made from `related`."""
    text = normalise(password)
    if len(text) < min_length:
        raise Invalid.at(
            "body", field, message=f"The password needs at least {min_length} characters.", kind="password_too_short"
        )
    if len(text) > MAX_LENGTH:
        raise Invalid.at(
            "body", field, message=f"The password may have at most {MAX_LENGTH} characters.", kind="password_too_long"
        )
    words = [word for text in related for word in (text, text.partition("@")[0]) if word]
    estimate = _estimate(text, ["muster", *words])
    if estimate["score"] < _GUESSES_FLOOR:
        hint = estimate["feedback"]["warning"] or "It is too easy to guess."
        raise Invalid.at(
            "body", field, message=f"The password is common or easy to guess: {hint}", kind="password_too_common"
        )


def _estimate(text: str, words: Sequence[str]) -> dict[str, Any]:
    """zxcvbn's view. It tries every reading of the digits and signs that stand for letters, which takes seconds if
    there are many kinds of them, so then the signs become letters first; a line break at the end upsets its dates."""
    kinds = {sign for sign in text if sign.isascii() and (sign.isdigit() or ord(sign) in _SIGNS)}
    signs = _SIGNS if len(kinds) > _MAX_READ_AS_LETTERS else {}
    plain = [re.sub(r"\s", " ", word[:_ZXCVBN_LENGTH]).translate(signs) for word in (text, *words)]
    estimate: dict[str, Any] = zxcvbn(plain[0], user_inputs=plain[1:])
    return estimate


class PasswordHasher:
    """Hashing behind a limiter and a bounded queue of its own. Holds no session: call it between two of them."""

    def __init__(self) -> None:
        # Always the same threads: each that has hashed once keeps its 19 MiB.
        self._threads = ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash")
        self._bulkhead = Bulkhead(
            HASH_THREADS, HASH_QUEUE, detail="Too many sign-ins at once. Try again in a moment.", retry_after=2
        )
        # An unknown account costs a real verification of this; making it here also pays libpass's slow first call.
        self._decoy = _context.hash("decoy")

    async def hash(self, password: str) -> str:
        return await self._run(lambda: str(_context.hash(normalise(password))))

    async def verify(self, password: str, password_hash: str | None) -> tuple[bool, str | None]:
        """(does it match, the stronger hash to store or None). Without a hash it takes as long and says no."""

        def compare() -> tuple[bool, str | None]:
            matches, stronger = _context.verify_and_update(normalise(password), password_hash or self._decoy)
            return matches and password_hash is not None, stronger

        return await self._run(compare)

    async def check_policy(self, password: str, *, min_length: int, related: Sequence[str], field: str) -> None:
        """check_policy in a thread: an estimate takes up to some 30 ms."""
        await self._run(lambda: check_policy(password, min_length=min_length, related=related, field=field))

    async def _run(self, work: Callable[[], T]) -> T:
        async with self._bulkhead.enter():
            return await get_running_loop().run_in_executor(self._threads, work)
