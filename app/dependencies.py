"""The dependencies in the routes' signatures: sessions, callers with a scope, pages of lists, idempotency keys.

The limit of chat messages is here too, since two routers share it.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Response, Security
from pydantic import BeforeValidator, StringConstraints
from sqlmodel import Session, SQLModel, col
from sqlmodel.sql.expression import SelectOfScalar

from app.authentication import current_user
from app.core.database import Side
from app.core.errors import Invalid
from app.core.scopes import SCOPES
from app.core.settings import get_settings
from app.http.cookies import SAFE_METHODS
from app.http.rate_limit import RouteLimit, by_person
from app.http.routing import RequestDependency
from app.models.base import MAX_ID, MAX_PAGE, utcnow
from app.models.operation import OperationFilter
from app.models.refresh_token import RefreshToken, SessionPublic
from app.oauth2.refresh_tokens import live_sessions
from app.oauth2.resource_server import Caller
from app.services import Services, services_of

Row = TypeVar("Row")
Entity = TypeVar("Entity", bound=SQLModel)


# ---- The services and the session ----


ServicesDep = Annotated[Services, RequestDependency(services_of)]


def side_of(request: Request) -> Side:
    """The side of the database that serves the request: safe methods read, all others write."""
    database = services_of(request).database
    return database.read if request.method in SAFE_METHODS else database.write


# app/http/routing.py runs the route with a session of that side, and commits before the response is sent.
SessionDep = Annotated[Session, RequestDependency(side_of)]


# ---- The caller, and the scope that a route requires ----


def requires(scope: str) -> Any:
    """The dependency of a route that needs a scope: `dependencies=[requires("users:read")]`."""
    if scope not in SCOPES:
        raise ValueError(f"app/core/scopes.py has no scope {scope}")
    return Security(current_user, scopes=[scope])


CurrentUser = Annotated[Caller, requires("me")]

LIMIT_CHAT = RouteLimit(get_settings().limit_chat, by_person, "message", kind="message")  # over every transport


# ---- Pages of lists, ids, filters, idempotency keys ----


_NEXT_PAGE = "The cursor of the next page, from the Next-Cursor header."
Cursor = Annotated[str | None, Query(max_length=2000, description=_NEXT_PAGE, examples=["dGhlIGN1cnNvcg"])]


class Page:
    """One page of a list: at most `limit` rows after the cursor. Adds headers that lead to the next one."""

    def __init__(self, request: Request, response: Response, limit: int, after: str | None) -> None:
        self.limit = limit
        self._request, self._response, self._path = request, response, request.scope["path"]
        self._signer = services_of(request).signers.cursor
        self.position = self._signer.verify(after, self._path) if after else None
        if after and self.position is None:
            message = "This cursor does not belong to this list. Take it from the Next-Cursor header."
            raise Invalid.at("query", "after", message=message, kind="cursor")

    def of(
        self, statement: SelectOfScalar[Entity], key: Any, *, newest_first: bool = False, value: str | None = None
    ) -> SelectOfScalar[Entity]:
        """The statement of this page, ordered by `key`, a unique column. Ids are in order of time, UUIDs of version 7
        too. If the key belongs to a joined table, `value` is the path to it from a row."""
        self._value = attrgetter(value or key.key)
        if self.position:
            last = key.type.python_type(self.position[0])
            statement = statement.where(key < last if newest_first else key > last)
        return statement.order_by(key.desc() if newest_first else key).limit(self.limit + 1)

    def cut(self, rows: Iterable[Row], position: Callable[[Row], list[str]] | None = None) -> list[Row]:
        """The rows of this page. The statement reads `limit + 1` rows: the extra one shows that there is a next page.
        `position` returns that of a row, for a statement that `of` did not build."""
        page = list(rows)
        if len(page) > self.limit:
            last = page[self.limit - 1]
            cursor = self._signer.sign(position(last) if position else [str(self._value(last))], self._path)
            self._response.headers.update(next_page(self._request, "after", cursor))
        return page[: self.limit]


async def get_page(
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="The maximum number of rows.")] = 50,
    after: Cursor = None,
) -> Page:
    return Page(request, response, limit, after)


PageDep = Annotated[Page, Depends(get_page)]


def next_page(request: Request, name: str, cursor: str) -> dict[str, str]:
    """The headers that lead to the next page: a link, and for typed clients the value of the parameter `name` alone."""
    return {"Link": next_link(request, **{name: cursor}), "Next-Cursor": cursor}


def next_link(request: Request, **query: object) -> str:
    """A Link header to the next page. It is a relative reference: a proxy may call this process by an internal name."""
    path = request.scope["raw_path"].decode()  # decoded, /api/tasks%0A would break the header
    return f'<{path}?{urlencode({**request.query_params, **query})}>; rel="next"'


SessionId = Annotated[UUID, Path(description="The id of the session, from the list of sessions.")]


def page_of_sessions(session: Session, page: Page, user_id: UUID, current: UUID | None = None) -> list[SessionPublic]:
    """One page of a user's live sessions; `current` is the caller's own."""
    rows = session.exec(page.of(live_sessions(user_id, utcnow()), col(RefreshToken.id), newest_first=True))
    return [SessionPublic.of(row, current=current) for row in page.cut(rows)]


LedgerQuery = Annotated[OperationFilter, Query()]

# The id of a row in a path. Larger numbers do not fit into the column.
RowId = Annotated[int, Path(ge=1, le=MAX_ID, description="The id of the row.", examples=[7])]


def _unquoted(value: str) -> str:
    """The key, which may be quoted like a string of RFC 9651."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


_EFFECT = "Repeating a request with the same key returns the first response, without performing it again."
_Key = Annotated[str, BeforeValidator(_unquoted), StringConstraints(pattern="^[!-~]{1,255}$")]
IdempotencyKey = Annotated[_Key | None, Header(description=_EFFECT, examples=["0b0d7f5e-3c1f-4a52-9f0e-1a2b3c4d5e6f"])]
