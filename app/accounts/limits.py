"""How often the password of an account may be tried, and how many mails may be sent to one recipient."""

import hashlib
from collections.abc import Callable
from uuid import UUID

from limits import RateLimitItem, RateLimitItemPerHour, parse_many
from limits.strategies import MovingWindowRateLimiter

from app.core import metrics
from app.core.addresses import networks
from app.core.logs import security_event
from app.core.moving_windows import LocalStorage, SharedStorage, refusal

# Wrong passwords of one account, however many networks they come from.
ACCOUNT_CEILING = RateLimitItemPerHour(100)
# Mails of one kind to one recipient, whoever requests them. When another is refused, the newest link still works.
MAIL_CEILING = RateLimitItemPerHour(10)
RECORDED_REFUSALS = RateLimitItemPerHour(1)  # of one account for one reason, in the audit log


class AccountLimits:
    """Wrong passwords of one account: few from one network, a high ceiling from all. Unknown accounts count alike.

    An attempt is counted for its networks before its hash is computed, so that racing attempts cannot pass together;
    the right password gives those networks' attempts back. The ceiling counts wrong passwords only, once they are
    known to be wrong: the owner's sign-ins neither reach it nor make room for a guesser. Every method may block.
    """

    def __init__(self, limit: str, redis_url: str | None) -> None:
        self._items = parse_many(limit)
        self._windows = MovingWindowRateLimiter(SharedStorage(redis_url) if redis_url else LocalStorage())

    def count_attempt(self, account: str, address: str, kind: str = "password") -> None:
        """Count one attempt; raise TooManyRequests if it is one too many for its networks."""
        for network in networks(address):
            self._hit(_account_key(account), network, kind=kind)

    def check_ceiling(self, account: str) -> None:
        """Raise TooManyRequests once there were too many wrong passwords from all networks together."""
        self._require(self._windows.test, ACCOUNT_CEILING, _account_key(account), "all", kind="password")

    def count_confirmation(self, user_id: UUID) -> None:
        """Count a confirmation of the current password by somebody who is signed in; nothing gives it back."""
        self._hit(_account_key(f"confirmation/{user_id}"), kind="password")

    def count_failure(self, account: str) -> None:
        """Count a wrong password toward the ceiling."""
        self._windows.hit(ACCOUNT_CEILING, _account_key(account), "all")

    def count_new_refusal(self, account: str, reason: str) -> bool:
        """Count a refusal; False if one for this reason was counted within an hour. Unknown accounts count alike."""
        return self._windows.hit(RECORDED_REFUSALS, _account_key(account), reason)

    def forget_attempts(self, account: str, address: str) -> None:
        for network in networks(address):
            for item in self._items:
                self._windows.clear(item, _account_key(account), network)

    def forget_all(self, account: str, address: str) -> None:
        """Forget the wrong passwords of an account whose owner has reset it."""
        self.forget_attempts(account, address)
        self._windows.clear(ACCOUNT_CEILING, _account_key(account), "all")

    def count_mail_request(self, recipient: str, address: str) -> None:
        """Count a requested mail against the same limit as password attempts; nothing gives it back."""
        self.count_attempt(f"mail/{recipient}", address, kind="mail")

    def may_mail(self, recipient: str, template: str) -> bool:
        """Count a mail that is about to be sent; False if it is one too many for its recipient."""
        is_within = self._windows.hit(MAIL_CEILING, _account_key(f"to/{recipient}"), template)
        if not is_within:
            metrics.count("limit_hits", kind="mail")
        return is_within

    def _hit(self, *key: str, kind: str) -> None:
        for item in self._items:
            self._require(self._windows.hit, item, *key, kind=kind)

    def _require(self, is_free: Callable[..., bool], item: RateLimitItem, *key: str, kind: str) -> None:
        if not is_free(item, *key):
            security_event("attempts refused", kind=kind, within_seconds=item.get_expiry())
            raise refusal(item, self._windows.get_window_stats(item, *key).reset_time, kind)


def _account_key(account: str) -> str:
    """The hash under which an account is counted: addresses stay out of Redis, and a dump of it names nobody."""
    return "login/" + hashlib.sha256(account.encode()).hexdigest()[:32]
