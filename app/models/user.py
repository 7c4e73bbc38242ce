"""Accounts: roles, users, and their identities at an external provider."""

from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from pydantic import MISSING, AfterValidator, StrictBool, StringConstraints, WithJsonSchema
from sqlalchemy import Column, ColumnElement, Computed
from sqlmodel import JSON, BigInteger, Field, Relationship, SQLModel, UniqueConstraint, col, func, select

from app.core.scopes import SCOPES
from app.models.base import NEVER_LAZY, OPAQUE_EXAMPLE, Body, SortedAddress, SortedName, described, equal, utcnow, uuid7
from app.models.types import MAX_EMAIL, Email, Name, Plain, StoredEmail, UtcTime, line, text_schema

# Far above every password that the policy in app/accounts/passwords.py accepts.
MAX_PASSWORD_INPUT = 1024


def _password(example: str, description: str) -> tuple[Any, ...]:
    """The constraints of a password as it was typed. The policy is checked where a password is set."""
    limits = StringConstraints(max_length=MAX_PASSWORD_INPUT, pattern=r"^[^\x00]*$")
    return limits, text_schema(description, example, maxLength=MAX_PASSWORD_INPUT)


Password = Annotated[str, *_password("violet-tandem-harbor", "Your current password.")]
NewPassword = Annotated[str, *_password("copper-lantern-meadow", "The new password.")]


def _known_scope(value: str) -> str:
    if value not in SCOPES:
        raise ValueError("there is no such scope: GET /api/roles shows all of them, at the role admin")
    return value


Scope = Annotated[str, AfterValidator(_known_scope), WithJsonSchema({"type": "string", "enum": list(SCOPES)})]
RoleName = Annotated[Plain, StringConstraints(max_length=50), text_schema("The role's name.", "user", maxLength=50)]
Search = Annotated[str, *line(MAX_EMAIL, "ada", "Only accounts whose address or name begins with this, in any case.")]
_SCOPES, _SOME_SCOPES = "What the role allows.", ["me", "operations:read"]


class RoleBase(SQLModel):
    name: str = described("The role's name.", "user", max_length=50)
    scopes: list[str] = described(_SCOPES, _SOME_SCOPES, sa_type=JSON)


class Role(RoleBase, table=True):
    __table_args__ = (UniqueConstraint("name"),)

    id: int | None = Field(default=None, primary_key=True)


class RolePublic(RoleBase):
    pass


class RoleUpdate(Body):
    scopes: list[Scope] = described(_SCOPES, _SOME_SCOPES, min_length=1, max_length=100)


class UserBase(SQLModel):
    email: Email = Field(max_length=MAX_EMAIL, sa_type=SortedAddress)
    name: Name | None = Field(default=None, max_length=100)


LinkKind = Literal["reset", "verification", "email_change"]
LINK_KINDS: tuple[LinkKind, ...] = get_args(LinkKind)


class User(UserBase, table=True):
    __table_args__ = (UniqueConstraint("email"),)

    id: UUID = Field(default_factory=uuid7, primary_key=True)
    role_id: int | None = Field(default=None, foreign_key="role.id", index=True, nullable=False)
    password_hash: str | None = Field(default=None, max_length=255)  # None: the person signs in at the provider
    # Sessions, codes and mailed links are valid only in the epoch in which they began: raising it invalidates them all.
    auth_epoch: int = Field(default=1)
    is_active: bool = True
    is_verified: bool = False
    new_email: str | None = Field(default=None, max_length=MAX_EMAIL)
    created_at: UtcTime = Field(default_factory=utcnow)
    # For searches, computed by the database. SQLite computes it on reading, and folds ASCII letters only.
    folded_name: str | None = Field(
        default=None, sa_column=Column(SortedName, Computed("lower(name)", persisted=True), index=True)
    )
    # The revision of the latest change to this user's operations, and the highest revision of a purged tombstone.
    operations_revision: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    operations_floor: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})

    # When the newest mailed link of each kind expires, in seconds since 1970: older links are invalid.
    newest_reset: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    newest_verification: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    newest_email_change: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})

    role: Role = Relationship(sa_relationship_kwargs=NEVER_LAZY)

    def link_recipient(self, kind: LinkKind) -> str | None:
        """The address that a link of this kind is mailed to; None if the account has no use for such a link."""
        recipients: dict[LinkKind, str | None] = {
            "reset": self.email if self.password_hash else None,
            "verification": None if self.is_verified else self.email,
            "email_change": self.new_email,
        }
        return recipients[kind] if self.is_active else None


class IdentityBase(SQLModel):
    id: UUID = Field(default_factory=uuid7, primary_key=True)
    issuer: str = Field(max_length=500)
    subject: str = Field(max_length=255)
    created_at: UtcTime = Field(default_factory=utcnow)


class Identity(IdentityBase, table=True):
    """A user's identity at the external provider: issuer and subject, never an address.

    `synced_at` is the `iat` of the newest token whose roles were applied.
    """

    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    user_id: UUID = Field(foreign_key="user.id", ondelete="CASCADE", index=True)
    synced_at: UtcTime


class UserCreate(Body, UserBase):
    password: Password = Field(description="A password of your choice.")


class UserUpdate(Body):
    """Changes to one's own account that need no password."""

    name: Name | MISSING | None = Field(default=MISSING)


class UserAdminUpdate(UserUpdate):
    role: RoleName | MISSING = Field(default=MISSING)
    is_active: StrictBool | MISSING = Field(default=MISSING, description="false disables the account.")


class UserFilter(SQLModel):
    """The query parameters that select the accounts of a list.

    Both databases find the beginning of an address or a name by an index. Searching its middle would need pg_trgm,
    which not every PostgreSQL has.
    """

    search: Search | None = Field(default=None)
    role: RoleName | None = Field(default=None, description="Only accounts with this role.")
    is_active: bool | None = Field(default=None, description="false: only those that an admin has disabled.")

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions = equal(User, self)
        if self.search is not None:
            last = f"{self.search}\U0010ffff"  # the last code point: a range, so that % and _ mean themselves
            address = col(User.email).between(self.search.lower(), last.lower())
            conditions.append(address | col(User.folded_name).between(func.lower(self.search), func.lower(last)))
        if self.role is not None:
            conditions.append(select(Role.id).where(Role.id == User.role_id, Role.name == self.role).exists())
        return conditions


class UserPublic(UserBase):
    email: StoredEmail
    id: UUID = Field(description="The account's id.")
    role: str = described("The role's name.", "user")
    scopes: list[str] = described(_SCOPES, _SOME_SCOPES)
    is_active: bool = Field(description="false: disabled by an admin.")
    is_verified: bool = Field(description="Whether the address has been confirmed.")
    created_at: UtcTime = Field(description="When it was registered.")

    @classmethod
    def of(cls, user: User) -> "UserPublic":
        """The account as the API shows it; its role must be loaded."""
        return cls.model_validate(user, update={"role": user.role.name, "scopes": user.role.scopes})


# What everybody with the scope `tasks` may know of an account.
class AssigneePublic(SQLModel):
    id: UUID = Field(description="The account's id.")
    name: Name | None


class EmailBody(Body):
    email: Email


class EmailChange(EmailBody):
    current_password: Password


RelatedText = Annotated[Plain, StringConstraints(max_length=MAX_EMAIL)]
_RELATED = "Texts that the password must not be derived from, such as the person's address and name."


class PasswordCheck(Body):
    password: NewPassword
    related: list[RelatedText] = described(_RELATED, ["ada@example.com", "Ada"], min_length=1, max_length=5)


class PasswordChange(Body):
    current_password: Password
    new_password: NewPassword


class AccountDeletion(Body):
    """The body that deletes one's own account. Accounts that have no password here leave `current_password` out."""

    current_password: Password | MISSING = Field(default=MISSING)


class MailedToken(Body):
    token: Plain = described("The part after `#token=` in the mailed link.", OPAQUE_EXAMPLE, max_length=200)


class PasswordReset(MailedToken):
    new_password: NewPassword
