"""Break Muster's surroundings while phones write, and count lost operations, as ./scripts/faults does."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import logging
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scripts.errors import end_cleanly
from scripts.fault_injection.clock import clock
from scripts.fault_injection.crowd import Outcome
from scripts.fault_injection.disk import full_disk
from scripts.fault_injection.kills import kill, kill_worker
from scripts.fault_injection.outages import database, redis
from scripts.fault_injection.restores import restore
from scripts.fault_injection.soak import soak
from scripts.fault_injection.testbed import Testbed
from scripts.phone import SignedOut
from tests.support.databases import make_templates, start_postgres

# Each scenario yields what it found; --list prints their docstrings.
SCENARIOS: dict[str, Callable[[Testbed, str], Iterator[Outcome]]] = {
    "kill": kill,
    "kill-worker": kill_worker,
    "database": database,
    "redis": redis,
    "full-disk": full_disk,
    "restore": restore,
    "clock": clock,
    "soak": soak,
}
DATABASES = ("postgresql", "sqlite")

logging.getLogger("muster").addHandler(logging.NullHandler())  # sessions that tests/support begins need no log lines


def main() -> None:
    options = parse()
    if options.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:<12} {scenario.__doc__}")
        return
    end_cleanly()
    with tempfile.TemporaryDirectory(prefix="muster-faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        postgres = os.environ.get("TEST_DATABASE_URL") or start_postgres(folder)
        make_templates(folder, postgres)
        testbed = Testbed(folder, postgres, options.clients, options.kills, options.seconds, options.minutes)
        scenarios = options.scenarios or SCENARIOS
        sys.exit(run(testbed, scenarios, (options.on,) if options.on else DATABASES))


def run(testbed: Testbed, scenarios: Iterable[str], databases: Iterable[str]) -> int:
    """Print each outcome as it comes; the exit status."""
    status = 0
    for scenario in scenarios:
        for kind in databases:
            try:
                for outcome in SCENARIOS[scenario](testbed, kind):
                    print(outcome, flush=True)
                    status = status if outcome.is_clean else 1
            except (AssertionError, RuntimeError, SignedOut) as error:
                print(f"{scenario}, {kind}: {error}", flush=True)
                status = 1
    return status


def parse() -> Namespace:
    parser = Parser(prog="./scripts/faults", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--list", action="store_true", help="say what each scenario breaks")
    parser.add_argument("--on", choices=DATABASES, help="only on this database")
    parser.add_argument("--clients", type=int, default=48, help="phones that write at once")
    parser.add_argument("--kills", type=int, default=10, help="how often the service is killed on each database")
    parser.add_argument("--seconds", type=float, default=10, help="length of an outage, and of the traffic around it")
    parser.add_argument("--minutes", type=float, default=3, help="length of the soak on each database")
    options = parser.parse_args()
    if unknown := set(options.scenarios) - SCENARIOS.keys():
        parser.error(f"unknown scenario: {', '.join(sorted(unknown))}")
    if options.clients < 1 or options.kills < 1 or options.seconds <= 0 or options.minutes <= 0:
        parser.error("--clients, --kills, --seconds and --minutes have to be more than 0")
    return options


if __name__ == "__main__":
    main()
