"""The clock of the service's machine jumps."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from scripts.fault_injection.crowd import Crowd, Outcome
from scripts.fault_injection.testbed import Testbed

# Forward over the life of an access token, back to before it was issued, and within the idle limit of a session.
JUMPS = (timedelta(hours=1), timedelta(), timedelta(hours=-1), timedelta(), timedelta(days=20))


def clock(testbed: Testbed, kind: str) -> Iterator[Outcome]:
    """The clock jumps forward and back, by minutes to weeks: everybody stays signed in"""
    file = testbed.folder / f"clock-{kind}"
    move(file, 0)
    with testbed.muster(kind, app="tests.support.apps.moved_clock:app", MOVED_CLOCK=str(file)) as muster:
        crowd = Crowd(muster, testbed.folder, testbed.clients)
        for jump in JUMPS:
            with crowd.traffic(testbed.seconds / 4):
                move(file, jump.total_seconds())
        yield crowd.outcome(f"clock, {kind}", f"{len(JUMPS)} jumps", 401)


def move(file: Path, seconds: float) -> None:
    """Replace the file in one step: a request that reads it while it is written would find half a number."""
    draft = file.with_suffix(".new")
    draft.write_text(str(seconds))
    draft.replace(file)
