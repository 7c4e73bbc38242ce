"""The scopes of the API (RFC 6749 section 3.3), and the scopes that the two roles have at first."""

SCOPES: dict[str, str] = {
    "me": "Read and change your own account and devices",
    "operations:read": "Read your own operations",
    "operations:write": "Add, change and delete your own operations",
    "heroes:read": "Read heroes and teams",
    "heroes:write": "Change heroes and teams",
    "heroes:secrets": "See a hero's secret name",
    "tasks": "Read and change tasks",
    "chat": "Read and write chat messages",
    "jobs": "Start and watch your own jobs",
    "users:read": "Read other accounts, the roles and all jobs",
    "users:write": "Change other accounts and the roles",
    "tokens:introspect": "Check whether other people's sign-ins are still valid",
}

ADMIN = "admin"
USER = "user"

# The roles that scripts/seed.py creates. Afterward, only the rows in the database count.
ROLES: dict[str, list[str]] = {
    USER: ["me", "operations:read", "operations:write", "heroes:read", "tasks", "chat", "jobs"],
    ADMIN: list(SCOPES),
}


def in_order(names: set[str] | frozenset[str]) -> list[str]:
    """The known scopes among `names`, in the order of SCOPES."""
    return [scope for scope in SCOPES if scope in names]
