"""What OpenAPI allows and people do not think of, with fixed seeds. ./scripts/fuzz goes on where this stops."""

from collections.abc import Callable

import pytest

from scripts.fuzzing.run import SETTINGS, fuzz
from tests.support.resources import new_hero, new_team
from tests.support.servers import Muster

pytestmark = pytest.mark.slow

# The short form: each database with one of the roles, a minute of CPU. ./scripts/fuzz takes every pair.
ROLES = {"sqlite": "user", "postgresql": "admin"}
EXAMPLES = 6
SEED = 20_261_124

# They succeed by luck or never: a password, a mailed token, a row of one's own, two ids that are there at that moment,
# a job that has ended, or one that has not; a stream has no end, and is left out.
NEED_LUCK = {
    *(
        "cookieLogin",
        "resetPassword",
        "verifyEmail",
        "joinTeam",
        "leaveTeam",
        "revokeMySession",
        "updateTask",
        "deleteTask",
    ),
    *("readOperation", "replaceOperation", "updateOperation", "deleteOperation"),
    *("readJob", "readJobResult", "cancelJob", "followMessages"),
}
FOR_ADMINS = {
    "introspect",
    "listUsers",
    "readUser",
    "updateUser",
    "deleteUser",
    "listSessions",
    "revokeSessions",
    "listRoles",
    "updateRole",
    "createHero",
    "updateHero",
    "deleteHero",
    "createTeam",
    "updateTeam",
    "deleteTeam",
}


def test_the_service_does_what_its_openapi_says(serve: Callable[..., Muster], kind: str) -> None:
    muster, role = serve(**SETTINGS), ROLES[kind]
    admin = muster.admin().tokens()
    for _ in range(3):  # the smallest ids are tried first, and an admin deletes some
        new_hero(muster, admin)
        new_team(muster, admin)
    operations = {
        operation["operationId"]
        for path in muster.client.get("/api/openapi.json").json()["paths"].values()
        for operation in path.values()
    }
    outcome = fuzz(muster, role, seed=SEED, max_examples=EXAMPLES)
    assert outcome.is_clean, outcome.report
    assert "ticket" not in muster.log
    assert "Traceback" not in muster.log
    # Had the caller been lost on the way, most of this would have been refused.
    assert outcome.succeeded() >= operations - NEED_LUCK - (FOR_ADMINS if role == "user" else set())
