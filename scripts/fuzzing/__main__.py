"""Fuzz both databases in turn, as a user and as an admin, with random seeds, as ./scripts/fuzz does."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from secrets import randbelow

from app.core.scopes import ROLES
from scripts.errors import end_cleanly
from scripts.fuzzing.run import NEW_CALLER, SETTINGS, fuzz
from tests.support.databases import fresh_database, make_templates, start_postgres
from tests.support.oidc_provider import CLIENT, OidcProvider, secret_of
from tests.support.redis_server import RedisServer
from tests.support.rsa_keys import key_file
from tests.support.servers import Muster
from tests.support.workers import Worker

DATABASES = ("postgresql", "sqlite")
PHASES = ("examples", "coverage", "fuzzing", "stateful")
UNBOUNDED = 100_000  # examples of one operation; the time limit ends a run


def main() -> None:
    options = parse()
    end_cleanly()
    with tempfile.TemporaryDirectory(prefix="muster-fuzz-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own
        postgres = os.environ.get("TEST_DATABASE_URL") or start_postgres(folder)
        make_templates(folder, postgres)
        clean = [
            run(kind, role, folder, postgres, options)
            for kind in ((options.on,) if options.on else DATABASES)
            for role in ROLES
        ]
    sys.exit(not all(clean))


def parse() -> Namespace:
    parser = Parser(prog="./scripts/fuzz", description=__doc__)
    parser.add_argument("--on", choices=DATABASES, help="only on this database")
    parser.add_argument("--minutes", type=float, default=5, help="how long on each database (default 5)")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run (default: random)")
    parser.add_argument("--phases", help="such as stateful: requests that follow from the responses (default: all)")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes has to be more than 0")
    phases = options.phases.split(",") if options.phases else PHASES
    if unknown := set(phases) - set(PHASES):
        parser.error(f"--phases: there is no {min(unknown)}: {', '.join(PHASES)}")
    return options


def run(kind: str, role: str, folder: Path, postgres: str, options: Namespace) -> bool:
    """Fuzz an instance with every feature switched on; True if nothing was found in the responses or the log."""
    seed, seconds = options.seed or randbelow(2**31), round(options.minutes * 60 / len(ROLES))
    with (
        RedisServer(folder) as redis,
        OidcProvider(folder) as provider,
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, **everything(folder, redis, provider), **SETTINGS) as muster,
        Worker(muster, app="app.worker"),
    ):
        outcome = fuzz(muster, role, seed=seed, max_examples=UNBOUNDED, max_seconds=seconds, phases=options.phases)
        broken = "ticket" in muster.log
        callers = sum(outcome.responses.get(NEW_CALLER, {}).values())
        print(f"{kind}, {role}, seed {seed}: {outcome.requests} requests, {callers} callers", flush=True)
        if broken or not outcome.is_clean:
            print(outcome.report, muster.log if broken else "", sep="\n", flush=True)
        return outcome.is_clean and not broken


def everything(folder: Path, redis: RedisServer, provider: OidcProvider) -> dict[str, str]:
    return {
        "OIDC_ISSUER": provider.issuer,
        "OIDC_CLIENT_ID": CLIENT,
        "OIDC_CLIENT_SECRET": secret_of(CLIENT),
        "REDIS_URL": redis.url,
        "JWT_PRIVATE_KEY_FILES": str(key_file(folder, "fuzz")),
        "METRICS_TOKEN": "of-the-fuzzer-0123456789",
    }


if __name__ == "__main__":
    main()
