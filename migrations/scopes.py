"""Give a new scope to the roles of an existing database, which ./scripts/seed.py leaves as they are.

./scripts/migrate writes the call for each scope of app/core/scopes.py that no migration has granted yet. A new database
has no roles at this point: they are created later, with all their scopes.
"""

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy import Connection

# The roles of the first release. What they have gained since, migrations have granted.
FIRST_ROLES = {
    "user": ["me", "operations:read", "operations:write", "heroes:read", "tasks", "chat", "jobs"],
    "admin": [
        *("me", "operations:read", "operations:write", "heroes:read", "heroes:write", "heroes:secrets"),
        *("tasks", "chat", "jobs", "users:read", "users:write", "tokens:introspect"),
    ],
}
_ROLE = sa.table("role", sa.column("name", sa.String), sa.column("scopes", sa.JSON))


def grant_scope(connection: Connection, scope: str, *roles: str) -> None:
    """Add the scope to those of the roles that exist: `grant_scope(op.get_bind(), "notes", "user", "admin")`."""
    _change(connection, lambda name, scopes: [*scopes, scope] if name in roles and scope not in scopes else scopes)


def revoke_scope(connection: Connection, scope: str) -> None:
    """Take the scope from every role, for the downgrade: the release before does not know it."""
    _change(connection, lambda _, scopes: [each for each in scopes if each != scope])


def _change(connection: Connection, change: Callable[[str, list[str]], list[str]]) -> None:
    for name, scopes in connection.execute(sa.select(_ROLE.c.name, _ROLE.c.scopes)).all():
        connection.execute(_ROLE.update().where(_ROLE.c.name == name).values(scopes=change(name, scopes)))
