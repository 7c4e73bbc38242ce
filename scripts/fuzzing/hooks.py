"""Hooks for schemathesis: a caller that is always signed in, credentials that can be omitted, a tally of the responses.

The fuzzer may do everything: sign itself out, delete its account, remove scopes from its role. Before the next request
the caller is then replaced, so that no later response is a mere 401 or 403.
"""

import atexit
import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import schemathesis
from schemathesis import AuthContext, Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import UseAfterFree
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from app.core.scopes import ROLES
from app.models.types import CONTROLS, NOT_BLANK

PASSWORD = "violet-tandem-harbor"  # noqa: S105  # of accounts that live for one run
NEW_PASSWORD = "copper-lantern-meadow"  # noqa: S105  # the same
SAFE = {"GET", "HEAD", "OPTIONS"}
_LINE = rf"^[^{CONTROLS}]*[^\s{CONTROLS}][^{CONTROLS}]*$"

tally: defaultdict[str, Counter[int]] = defaultdict(Counter)


class Caller:
    """An account with FUZZ_ROLE on the instance that FUZZ_URL and FUZZ_DATABASE_URL name."""

    def __init__(self) -> None:
        self._http = httpx.Client(base_url=os.environ["FUZZ_URL"], timeout=30)
        self._engine = create_engine(os.environ["FUZZ_DATABASE_URL"], poolclass=NullPool)
        self._role = os.environ["FUZZ_ROLE"]
        self._token = ""
        self.email = ""
        self.may_be_broken = True

    def token(self) -> str:
        """A valid access token with every scope of the role."""
        if not self._token or (self.may_be_broken and not self._works()):
            self._replace()
        self.may_be_broken = False
        return self._token

    def _works(self) -> bool:
        me = self._http.get("/api/users/me", headers={"Authorization": f"Bearer {self._token}"})
        return me.status_code == 200 and (me.json()["role"], me.json()["scopes"]) == (self._role, ROLES[self._role])

    def _replace(self) -> None:
        for role, scopes in ROLES.items():
            self._sql("UPDATE role SET scopes = :scopes WHERE name = :role", scopes=json.dumps(scopes), role=role)
        self.email = f"{uuid4().hex}@example.com"
        self._http.post("/api/auth/register", json={"email": self.email, "password": PASSWORD}).raise_for_status()
        role_id = "(SELECT id FROM role WHERE name = :role)"
        # `role_id` is the constant above.
        self._sql(f'UPDATE "user" SET role_id = {role_id} WHERE email = :email', role=self._role, email=self.email)  # noqa: S608
        form = {"grant_type": "password", "username": self.email, "password": PASSWORD}
        self._token = self._http.post("/api/auth/token", data=form).raise_for_status().json()["access_token"]
        tally["(a new caller)"][0] += 1

    def _sql(self, statement: str, **values: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), values)


caller = Caller()


@schemathesis.auth(refresh_interval=None)
class Bearer:
    """The authentication that schemathesis adds to each request."""

    def get(self, _case: Case[Any], _context: AuthContext) -> str:
        return caller.token()

    def set(self, case: Case[Any], data: str, _context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_load_schema(_context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Declare what the document leaves out, so that generated clients are simple: control characters are refused, null
    is taken for absence, and a number for an amount. And plain bearer tokens: the check that omits or falsifies
    credentials does not understand OAuth 2."""
    raw_schema["components"]["securitySchemes"]["muster"] = {"type": "http", "scheme": "bearer"}
    for name, schema in raw_schema["components"]["schemas"].items():
        required = schema.get("required", ())
        for field, described in schema.get("properties", {}).items() if "additionalProperties" in schema else ():
            may_be_null = name.endswith("Create") and field not in required and "default" not in described
            schema["properties"][field] = _as_taken(described, may_be_null=may_be_null)


def _as_taken(field: dict[str, Any], *, may_be_null: bool) -> dict[str, Any]:
    pattern = field.get("pattern", "")
    if pattern == NOT_BLANK and field["maxLength"] <= 1000:  # longer text may have lines
        field = field | {"pattern": _LINE}
    also: list[dict[str, Any]] = [{"type": "null"}] if may_be_null else []
    if "[0-9]" in pattern:
        also.append({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10**12})
    return {"anyOf": [field, *also]} if also else field


@schemathesis.hook
def map_body(_context: HookContext, body: Any) -> Any:
    """Insert the caller's own password where one is required; with any other, such a request could never succeed."""
    if not isinstance(body, dict):
        return body
    if _is_password(body.get("current_password")):
        body = {**body, "current_password": PASSWORD}
        if _is_password(body.get("new_password")) and len(body["new_password"]) % 2 == 0:
            body = {**body, "new_password": NEW_PASSWORD}
    if body.get("grant_type") == "password":
        body = {**body, "username": caller.email, "password": PASSWORD}
    return body


def _is_password(value: Any) -> bool:
    """Whether the schema allows the value; invalid ones have to be sent unchanged."""
    return isinstance(value, str) and len(value) <= 1024 and "\0" not in value


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, case: Case[Any], _response: Response) -> bool:
    """Drop two false use-after-free reports: a list whose items were deleted still exists, and so does a job, which
    deleting cancels."""
    return not (isinstance(failure, UseAfterFree) and (case.path.endswith("/sessions") or "/jobs/" in case.path))


@schemathesis.hook
def after_call(_context: HookContext, case: Case[Any], response: Response) -> None:
    tally[str(case.operation.definition.raw.get("operationId"))][response.status_code] += 1
    caller.may_be_broken |= case.method not in SAFE and response.status_code < 300


@atexit.register
def write_tally() -> None:
    Path(os.environ["FUZZ_TALLY"]).write_text(json.dumps(tally))
