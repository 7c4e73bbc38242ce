"""Passwords: the policy, and Argon2id hashing (RFC 9106), each in a thread behind a bulkhead of its own."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from passlib.context import CryptContext

from app.core.concurrency import Bulkhead, in_thread
from app.core.errors import Invalid
from app.core.settings import get_settings
from app.models.user import MAX_PASSWORD_INPUT, UserBase

MAX_LENGTH = 128
# At 25 to 35 ms a hash, the last in the queue waits about a second. Beyond that, a 503 serves the client better. One
# network or account has a quarter of the places, so that it does not keep everybody else from signing in.
QUEUE, SHARE = 32, 8
_ZXCVBN_LENGTH = 32  # characters, less than 20 ms: its running time grows faster than the length
_LEET = str.maketrans("@({[<!|$+%", "accccilstx")  # zxcvbn reads these and the ten digits as letters

_MEMORY, _PASSES = 19456, 2  # KiB and iterations, in one lane
_context = CryptContext(
    schemes=["argon2"], argon2__type="ID", argon2__memory_cost=_MEMORY, argon2__time_cost=_PASSES, argon2__parallelism=1
)
# No password has this hash. Unknown accounts are verified against it, so that they take as long as known ones.
_DECOY = f"$argon2id$v=19$m={_MEMORY},t={_PASSES},p=1${'A' * 22}${'A' * 43}"


def normalize(password: str) -> str:
    """The password in NFKC, so that the same keys on another phone give the same one (NIST SP 800-63B section 3.1.1.2).

    Bounded before and after: one character may become eighteen, and normalizing sorts combining characters in quadratic
    time, minutes for a body full of them. The policy accepts no password of that length.
    """
    return unicodedata.normalize("NFKC", password[:MAX_PASSWORD_INPUT])[:MAX_PASSWORD_INPUT]


def hash_password(password: str) -> str:
    """The Argon2id hash of a password. Takes 25 to 35 ms."""
    return str(_context.hash(normalize(password)))


def is_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches, for scripts. Unlike PasswordHasher.verify, it returns at once without a hash."""
    return password_hash is not None and _context.verify(normalize(password), password_hash)


def check_policy(password: str, *, related: Sequence[str], field: str) -> None:
    """Raise Invalid, with the reason, for a password that is too short, too long, common or made from `related`."""
    text, min_length = normalize(password), get_settings().password_min_length
    if len(text) < min_length:
        reason, kind = f"The password needs at least {min_length} characters.", "password_too_short"
    elif len(text) > MAX_LENGTH:
        reason, kind = f"The password may have at most {MAX_LENGTH} characters.", "password_too_long"
    elif (hint := _weakness(text, related)) is not None:
        reason, kind = f"The password is common or easy to guess: {hint}", "password_too_common"
    else:
        return
    raise Invalid.at("body", field, message=reason, kind=kind)


def _weakness(text: str, related: Sequence[str]) -> str | None:
    """Why zxcvbn finds the password too easy to guess; None if it does not.

    zxcvbn tries every reading of digits and signs as letters, which takes seconds where there are many kinds of them:
    then the signs are replaced first. White space becomes spaces, because a trailing line break breaks its dates.
    """
    from zxcvbn import zxcvbn  # noqa: PLC0415  # its dictionaries take 12 MB, which only new passwords need

    words = [word for other in related for word in (other, other.partition("@")[0]) if word]
    kinds = {sign for sign in text if sign.isascii() and (sign.isdigit() or ord(sign) in _LEET)}
    signs = _LEET if len(kinds) > 10 else {}  # all twenty kinds took 2 s
    plain = [re.sub(r"\s", " ", word[:_ZXCVBN_LENGTH]).translate(signs) for word in (text, "muster", *words)]
    estimate: dict[str, Any] = zxcvbn(plain[0], user_inputs=plain[1:])
    if estimate["score"] >= 2:  # below it, a million guesses are enough
        return None
    return str(estimate["feedback"]["warning"] or "It is too easy to guess.")


class PasswordHasher:
    """Checks the policy, hashes and verifies passwords. Call it while no database session is open.

    `parties` are the networks and the account of the request: none gets more than its share of the queue.
    """

    def __init__(self) -> None:
        # Each works alone. A second hash at once would more than double the p99 of all other requests (measured).
        self._policy = Bulkhead("passwords to check", capacity=QUEUE, share=SHARE, retry_after=2)
        self._hash = Bulkhead("passwords to check", capacity=QUEUE, share=SHARE, retry_after=2)

    async def hash_new(self, password: str, person: UserBase, *, field: str, parties: Sequence[str]) -> str:
        """The hash of a person's new password; Invalid at `field` if the policy rejects it."""
        await self.check(password, related=[person.email, person.name or ""], field=field, parties=parties)
        async with self._hash.enter(*parties):
            return await in_thread(hash_password, password)

    async def check(self, password: str, *, related: Sequence[str], field: str, parties: Sequence[str]) -> None:
        """Raise Invalid at `field` if the policy rejects a new password."""
        async with self._policy.enter(*parties):
            await in_thread(check_policy, password, related=related, field=field)

    async def verify(self, password: str, password_hash: str | None, parties: Sequence[str]) -> tuple[bool, str | None]:
        """Whether the password matches, and a stronger hash to store, if any. Without a hash: False, after as long."""
        async with self._hash.enter(*parties):
            return await in_thread(_context.verify_and_update, normalize(password), password_hash or _DECOY)
