"""Generated requests that OpenAPI allows, with fixed seeds. ./scripts/fuzz sends many more, with random ones."""

from collections.abc import Callable
from typing import Any

import pytest

from app.core.scopes import ROLES as SCOPES_OF_ROLES
from scripts.fuzzing.run import SETTINGS, fuzz
from tests.support.resources import new_hero, new_team
from tests.support.servers import Muster

pytestmark = pytest.mark.slow

# The short form: PostgreSQL as an admin, and single random requests on SQLite. ./scripts/fuzz takes everything.
ROLES = {"sqlite": "user", "postgresql": "admin"}
PHASES = {"sqlite": "fuzzing", "postgresql": None}
EXAMPLES = 6
SEED = 20_261_124

# They succeed by luck or never: a password, a mailed token, two ids that are there at that moment; a stream has no end,
# and is left out.
NEED_LUCK = {"cookieLogin", "resetPassword", "verifyEmail", "renewLink", "joinTeam", "leaveTeam", "followMessages"}
# So does whatever names a row by its id, but for these, of which the test makes some.
THERE = ("/api/heroes/{hero_id}", "/api/teams/{team_id}")


def test_the_service_does_what_its_openapi_says(serve: Callable[..., Muster], kind: str) -> None:
    muster, role = serve(**SETTINGS), ROLES[kind]
    # The smallest ids are tried first, and an admin deletes some.
    assert all(make(muster, muster.admin().tokens()) for make in (new_hero, new_team) * 3)
    expected = {
        operation["operationId"]
        for path, operations in muster.client.get("/api/openapi.json").json()["paths"].items()
        for operation in operations.values()
        if ("{" not in path or path.startswith(THERE) or "{name}" in path) and may(role, operation)
    }
    outcome = fuzz(muster, role, seed=SEED, max_examples=EXAMPLES, phases=PHASES[kind])
    assert outcome.is_clean, outcome.report
    assert "ticket" not in muster.log
    assert "Traceback" not in muster.log
    # Had the caller been lost on the way, most of this would have been refused.
    assert PHASES[kind] or outcome.succeeded() >= expected - NEED_LUCK


def may(role: str, operation: dict[str, Any]) -> bool:
    needed = {scope for one in operation.get("security", []) for scopes in one.values() for scope in scopes}
    return needed <= set(SCOPES_OF_ROLES[role])
