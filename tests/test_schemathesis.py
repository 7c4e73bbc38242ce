"""What OpenAPI allows and people do not think of, with fixed seeds. ./scripts/fuzz goes on where this stops."""

from collections.abc import Callable

import pytest

from scripts.fuzzing.run import SETTINGS, fuzz
from tests.servers import Muster

# A minute for all roles and databases together, on a machine that does nothing else.
EXAMPLES = 6
SEED = 20_261_124

# Nobody can guess what these need: a mailed token.
NEVER_SUCCEED = {"resetPassword", "verifyEmail"}
FOR_ADMINS = {
    "listUsers",
    "readUser",
    "updateUser",
    "deleteUser",
    "listSessions",
    "revokeSessions",
    "listRoles",
    "updateRole",
}


@pytest.mark.parametrize("role", ["user", "admin"])
def test_the_service_does_what_its_openapi_says(serve: Callable[..., Muster], role: str) -> None:
    muster = serve(**SETTINGS)
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
    assert outcome.succeeded() >= operations - NEVER_SUCCEED - (FOR_ADMINS if role == "user" else set())
