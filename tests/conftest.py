"""Fixtures: served instances, databases, browsers. And the lanes of ./scripts/test.

A test that takes `muster` runs twice, against a served instance on SQLite and one on PostgreSQL, unless its module is
marked `one_database`: its assertions do not depend on the database. Those that do, such as races or bytes that only
PostgreSQL refuses, are marked `both_databases` there. `--quick` leaves out PostgreSQL, what is marked `slow`, and every
test that takes one of HEAVY_FIXTURES.
"""

import atexit
import gc
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.callers import forget_the_caller
from tests.support.chromium import Chromium, launched
from tests.support.databases import fresh_database, make_templates, start_postgres
from tests.support.keycloak import Keycloak
from tests.support.oidc_provider import OidcProvider
from tests.support.processes import Fork
from tests.support.redis_server import RedisServer
from tests.support.servers import Muster, Tokens

DATABASES = ("sqlite", "postgresql")
# They start a browser, a server of another kind, or an instance for one test alone. A test that serves an instance by
# itself may be in the quick lane.
HEAVY_FIXTURES = {"chromium", "redis", "provider", "keycloak", "proxy", "serve"}
LONG_MODULES = ("test_extending", "test_schemathesis")
_SHARED = "MUSTER_TEST_FOLDER"
_POSTGRES = "MUSTER_TEST_POSTGRES"
_PASSED = "passed"
_open_browsers = ExitStack()
_browsers: list[Chromium] = []
_templates: list[Future[None]] = []

Muster.launch = Fork


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="SQLite alone, without browsers, Redis, providers, proxies and kills"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start PostgreSQL before the workers start, and begin to make the template databases: once a run."""
    forget_the_caller()
    if not _runs_tests(config):
        return
    folder = _new_folder(quick=config.option.quick)
    folder.chmod(0o755)  # PostgreSQL runs as a user of its own
    os.environ[_SHARED] = str(folder)
    atexit.register(_tidy, folder)  # runs after the handler of PostgreSQL, which stops it
    os.environ[_POSTGRES] = ""
    if not config.option.quick:
        os.environ[_POSTGRES] = os.environ.get("TEST_DATABASE_URL") or start_postgres(folder)
    _templates.append(ThreadPoolExecutor(1).submit(make_templates, folder, os.environ[_POSTGRES]))


def _new_folder(*, quick: bool) -> Path:
    """A folder for all that this run writes. The quick lane has it in memory: a seventh of its time was spent waiting
    for the disk."""
    memory = Path("/dev/shm")  # noqa: S108  # on Linux; mkdtemp makes a folder that nobody else has
    has_room = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return Path(tempfile.mkdtemp(prefix="muster-tests-", dir=memory if quick and has_room else None))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Wait before the first test for the template databases, which are made while the workers start and collect."""
    for made in _templates:
        made.result()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude modules and tests from garbage collection: walking them each time took seconds of every worker."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kind`: the databases that a test runs on."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", _databases_of(metafunc), scope="session")


def _databases_of(metafunc: pytest.Metafunc) -> tuple[str, ...]:
    test = metafunc.definition
    on_one = test.get_closest_marker("one_database") and not test.get_closest_marker("both_databases")
    return DATABASES[:1] if on_one or metafunc.config.option.quick else DATABASES


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not in the quick lane, and say how many tests that is; otherwise begin with the longest."""
    if config.option.quick:
        left_out = [item for item in items if not _is_quick(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _is_quick(item)]
    else:
        items[:] = _long_ones_first(items, workers=int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker is given a part of the list, in this order, and begins with one of what takes minutes: those that
    share a browser, and the modules named. Otherwise one of them could be started when the others have ended."""
    long = [[item for item in items if "chromium" in getattr(item, "fixturenames", ())]]
    long += [[item for item in items if item.path.stem == name] for name in LONG_MODULES]
    rest = [item for item in items if not any(item in group for group in long)]
    ordered: list[pytest.Item] = []
    for remaining in range(workers, 0, -1):
        part = (len(items) - len(ordered)) // remaining
        first = long.pop(0) if remaining > 1 and long else [item for group in long for item in group]
        ordered += first + [rest.pop(0) for _ in range(min(part - len(first), len(rest)))]
    return ordered + rest


def _is_quick(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    parameters = getattr(item, "callspec", None)
    on_sqlite = parameters is not None and parameters.params.get("kind") == "sqlite"
    needs_postgres = "postgres" in fixtures and not on_sqlite
    return not (fixtures & HEAVY_FIXTURES or needs_postgres or item.get_closest_marker("slow"))


def _runs_tests(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput") and not config.option.collectonly


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _runs_tests(session.config):
        (Path(os.environ[_SHARED]) / _PASSED).touch()


def _tidy(folder: Path) -> None:
    """Delete what a successful run wrote; a failed run keeps its logs and databases, on the disk."""
    if (folder / _PASSED).exists():
        shutil.rmtree(folder, ignore_errors=True)
    elif folder != _kept(folder):
        shutil.move(folder, _kept(folder))


def _kept(folder: Path) -> Path:
    return Path(tempfile.gettempdir()) / folder.name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print how many tests ran on each database, and where the servers' logs of a failed run are."""
    passed = terminalreporter.stats.get("passed", [])
    names = [match[1] for report in passed if (match := re.search(r"[\[-](sqlite|postgresql)\b", report.nodeid))]
    counts = Counter(names)
    for name in DATABASES[: 1 if terminalreporter.config.option.quick else None]:
        terminalreporter.write_line(f"{counts[name]} tests passed on {name}")
    if exitstatus != pytest.ExitCode.OK and _runs_tests(terminalreporter.config):
        terminalreporter.write_line(f"logs and databases: {_kept(Path(os.environ[_SHARED]))}")


@pytest.fixture(scope="session")
def folder() -> Path:
    """The directory for everything this run writes."""
    return Path(os.environ[_SHARED])


@pytest.fixture(scope="session")
def postgres() -> str:
    """The URL of the run's PostgreSQL server."""
    return os.environ[_POSTGRES]


@pytest.fixture(scope="session")
def redis(folder: Path) -> Iterator[RedisServer]:
    """A Redis of this worker of the run, which tests may stop and start."""
    with RedisServer(folder) as server:
        yield server


@pytest.fixture(scope="session")
def provider(folder: Path) -> Iterator[OidcProvider]:
    """A real identity provider of this worker of the run, which tests may stop and start."""
    with OidcProvider(folder) as server:
        yield server


@pytest.fixture(scope="session")
def muster(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """One instance for all tests of a worker: each makes accounts of its own and leaves the others' alone."""
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder) as served:
        yield served


@pytest.fixture(scope="session")
def counting(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    """An instance that reports in a header how many SQL statements each response took."""
    with (
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, app="tests.support.apps.statement_counter:app") as served,
    ):
        yield served


@pytest.fixture(scope="session")
def keycloak() -> Iterator[Keycloak]:
    """The identity provider of `external`."""
    with Keycloak() as provider:
        yield provider


@pytest.fixture(scope="session")
def external(kind: str, folder: Path, postgres: str, keycloak: Keycloak) -> Iterator[Muster]:
    """An instance that also accepts the tokens of `keycloak`."""
    settings = {"OIDC_ISSUER": keycloak.issuer, "OIDC_CLIENT_ID": "muster-app,muster-pages"}
    with fresh_database(kind, folder, postgres) as url, Muster(url, folder, **settings) as served:
        yield served


@pytest.fixture
def chromium() -> Chromium:
    """A real browser, which goes on to the next test if that takes one too."""
    if not _browsers:
        _browsers.append(_open_browsers.enter_context(launched()))
    return _browsers[0]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Close the browser before other tests: the loop of its driver would interfere with those that run one."""
    if "chromium" not in getattr(nextitem, "fixturenames", ()):
        _browsers.clear()
        _open_browsers.close()


@pytest.fixture(scope="module")
def admin(muster: Muster) -> Tokens:
    return muster.admin().tokens()


@pytest.fixture(scope="module")
def reader(muster: Muster) -> Tokens:
    """Tokens of a user who may read heroes and teams but not change them."""
    return muster.new_account().tokens()


@pytest.fixture
def database_url(kind: str, folder: Path, postgres: str) -> Iterator[str]:
    """A migrated database with roles, for this test alone."""
    with fresh_database(kind, folder, postgres) as url:
        yield url


@pytest.fixture
def empty_database_url(kind: str, folder: Path, postgres: str) -> Iterator[str]:
    """A database without a single table, for this test alone."""
    with fresh_database(kind, folder, postgres, migrated=False) as url:
        yield url


@pytest.fixture
def serve(database_url: str, folder: Path) -> Iterator[Callable[..., Muster]]:
    """Serve an instance with settings of this test's choice: serve(LIMIT_DEFAULT="3/minute")."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Muster(database_url, folder, **settings))
