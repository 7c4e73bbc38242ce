"""Measure Muster on this machine, scenario by scenario, as ./scripts/bench does."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from scripts.benchmarks.chat import chat
from scripts.benchmarks.comparison import peers
from scripts.benchmarks.floor_check import is_near_floor
from scripts.benchmarks.ledger import export, pages
from scripts.benchmarks.load import require_wrk
from scripts.benchmarks.logins import login, login_burst, logins_beside_reads
from scripts.benchmarks.reads import connections, log_line, me
from scripts.benchmarks.slots import slots
from scripts.benchmarks.starts import cold_start
from scripts.benchmarks.testbed import Testbed
from scripts.errors import end_cleanly
from tests.support.databases import make_templates, start_postgres

# Each scenario prints what it measured; --list prints their docstrings.
SCENARIOS: dict[str, Callable[[Testbed], None]] = {
    "me": me,
    "log-line": log_line,
    "connections": connections,
    "slots": slots,
    "login": login,
    "logins-beside-reads": logins_beside_reads,
    "login-burst": login_burst,
    "pages": pages,
    "export": export,
    "chat": chat,
    "cold-start": cold_start,
    "peers": peers,
}
# It installs other people's packages, so it runs only when it is named.
ON_REQUEST = "peers"
DATABASES = ("postgresql", "sqlite")


def main() -> None:
    options = parse()
    if options.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:<20} {scenario.__doc__}")
        return
    require_wrk()
    end_cleanly()
    with tempfile.TemporaryDirectory(prefix="muster-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        postgres = os.environ.get("TEST_DATABASE_URL") or start_postgres(folder)
        make_templates(folder, postgres)
        databases = (options.on,) if options.on else DATABASES
        testbed = Testbed(folder, postgres, databases, rounds=options.rounds, seconds=options.seconds)
        if options.check:
            sys.exit(0 if is_near_floor(testbed) else 1)
        for chosen in options.scenarios or [name for name in SCENARIOS if name != ON_REQUEST]:
            SCENARIOS[chosen](testbed)


def parse() -> Namespace:
    parser = Parser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all but peers unless named; see --list")
    parser.add_argument("--list", action="store_true", help="say what each scenario measures")
    parser.add_argument("--check", action="store_true", help="only hold the CPU of requests against the floor")
    parser.add_argument("--on", choices=DATABASES, help="only on this database")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of whatever is compared (default 5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a round under load (default 4)")
    options = parser.parse_args()
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}: {', '.join(SCENARIOS)}")
    if options.check and options.scenarios:
        parser.error("--check takes no scenario")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds have to be at least 1")
    return options


if __name__ == "__main__":
    main()
