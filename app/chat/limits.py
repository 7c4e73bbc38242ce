"""How many messages a person may write, and how many sockets may be opened."""

from uuid import UUID

from app.core.moving_windows import MovingWindows


class ChatLimits:
    """Messages of one user over every transport; sockets of one session, or failed openings from one network."""

    def __init__(self, messages: str, openings: str, redis_url: str | None) -> None:
        self._messages, self._openings = MovingWindows(messages, redis_url), MovingWindows(openings, redis_url)

    def message(self, user_id: UUID) -> None:
        self._messages.hit(("chat", str(user_id)), "message")

    def opening(self, key: str) -> None:
        self._openings.hit(("socket", key), "socket")
