"""The command line of ./scripts/bench: which scenarios there are, and where they run."""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from scripts.benchmarks.chat import chat
from scripts.benchmarks.ledger import export, pages
from scripts.benchmarks.load import require_wrk
from scripts.benchmarks.logins import login, login_burst, logins_beside_reads
from scripts.benchmarks.reads import connections, log_line, me
from scripts.benchmarks.slots import slots
from scripts.benchmarks.starts import cold_start
from scripts.benchmarks.testbed import Stage
from tests.support.databases import make_templates, start_postgres

# Each prints what it finds; the first line of its docstring is what --list says.
SCENARIOS: dict[str, Callable[[Stage], None]] = {
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
}
DATABASES = ("postgresql", "sqlite")


def main() -> None:
    options = parse()
    if options.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:<20} {scenario.__doc__}")
        return
    require_wrk()
    with tempfile.TemporaryDirectory(prefix="muster-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        postgres = os.environ.get("TEST_DATABASE_URL") or start_postgres(folder)
        make_templates(folder, postgres)
        databases = (options.on,) if options.on else DATABASES
        stage = Stage(folder, postgres, databases, rounds=options.rounds, seconds=options.seconds)
        for chosen in options.scenarios or SCENARIOS:
            SCENARIOS[chosen](stage)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description="Measure Muster on this machine.")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help="all of them unless named; see --list")
    parser.add_argument("--list", action="store_true", help="say what the scenarios measure")
    parser.add_argument("--on", choices=DATABASES, help="on this database only")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of what is compared (default 5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a round under load (default 4)")
    options = parser.parse_args()
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"{name} is not a scenario: {', '.join(SCENARIOS)}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    return options


if __name__ == "__main__":
    main()
