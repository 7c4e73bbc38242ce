"""Periods: the parameters `from` and `to`, and the words in which documents and pages name a period."""

from datetime import UTC, datetime, time, timedelta

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from sqlmodel import Field, SQLModel

from app.models.base import described
from app.models.types import Bound

_BOUND = "A date and time with an offset, or a day (its first moment in UTC)"
_DAY = timedelta(days=1)
_SECOND_DAY = datetime.min.replace(tzinfo=UTC) + _DAY  # an earlier end has no day before it


class Period(SQLModel):
    since: Bound | None = Field(default=None, alias="from", description=f"{_BOUND}, inclusive.")
    until: Bound | None = described(f"{_BOUND}, exclusive. Later than `from`.", "2023-11-01", default=None, alias="to")

    @field_validator("until")
    @classmethod
    def _is_later(cls, until: datetime | None, info: ValidationInfo) -> datetime | None:
        since = info.data.get("since")
        if since and until and until <= since:
            raise PydanticCustomError("period_backwards", "Choose an end after the start.")
        return until

    def in_words(self) -> str:
        """The period as a person would say it, in UTC. It ends with its last day: before February 1 is January."""
        style, back = self._style()
        start = self.since and self.since.strftime(style)
        end = self.until and (max(self.until, _SECOND_DAY) - back).strftime(style)
        if start and end:
            return start if start == end else f"{start} to {end}"
        return f"From {start}" if start else f"Until {end}" if end else "Everything"

    def _style(self) -> tuple[str, timedelta]:
        """The shortest format that is exact for these bounds, and how far before the end the last day is."""
        bounds = [bound for bound in (self.since, self.until) if bound]
        if any(bound.time() != time() for bound in bounds):
            return "%B %-d, %Y, %H:%M", timedelta()
        if any(bound.day > 1 for bound in bounds):
            return "%B %-d, %Y", _DAY
        return ("%B %Y" if any(bound.month > 1 for bound in bounds) else "%Y"), _DAY
