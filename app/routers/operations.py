"""The operations ledger: one's own operations, what changed since a revision, and totals."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from app.core.errors import IdempotencyKeyReused, OperationNotFound, PreconditionFailed, ResyncRequired
from app.core.etags import etag, if_none_match
from app.dependencies import (
    MAX_PAGE,
    IdempotencyKey,
    OperationFilters,
    OperationsReader,
    OperationsWriter,
    PageDep,
    RowId,
    ServicesDep,
    SessionDep,
    attempt_of,
)
from app.http.examples import headers
from app.http.openapi import problems
from app.http.routing import Router
from app.ledger import operations
from app.ledger.idempotency import Answer, fingerprint, once
from app.models.base import MAX_ID, utcnow
from app.models.operation import Changes, OperationCreate, OperationPublic, OperationUpdate, Total

router = Router("/api/operations", tags=["operations"])

Revision = Annotated[int, Query(ge=0, le=MAX_ID)]
IfMatch = Annotated[list[str] | None, Header(description="The ETag you know: 412 if it is another one by now.")]
IfNoneMatch = Annotated[list[str] | None, Header(description="The ETag you have: 304 if it is still the same.")]

_TOTALS = TypeAdapter(list[Total])
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing has changed since your ETag."}}
_CHANGE = problems(OperationNotFound, PreconditionFailed)


@dataclass(frozen=True, slots=True)
class Since:
    """How far a client's copy goes: all that happened up to a revision, or the first part of a fill."""

    revision: int
    limit: int
    fills: bool
    began: int | None

    def known(self, revision: int) -> int:
        """The revision up to which a purge hides nothing from this client; `revision` is the owner's present one.

        A copy that is up to `since` lacks what was deleted after it. A fill lacks what was deleted after it began.
        """
        if not self.fills:
            return self.revision
        if self.revision == 0:
            return revision
        return MAX_ID if self.began is None else self.began


async def since_of(
    since: Revision = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    full: Annotated[bool, Query(description="With every request that fills an empty copy.")] = False,
    began: Annotated[Revision | None, Query(description="In the Link header of a fill: where it began.")] = None,
) -> Since:
    return Since(since, limit, full or since == 0, began)


SinceDep = Annotated[Since, Depends(since_of)]


@router.get("", response_model=list[OperationPublic], responses=_NOT_MODIFIED)
def list_operations(
    response: Response,
    me: OperationsReader,
    session: SessionDep,
    filters: OperationFilters,
    page: PageDep,
    if_none_match: IfNoneMatch = None,
) -> list[OperationPublic] | Response:
    """Your operations, the newest first. The ETag is that of the whole ledger: any change of yours changes it."""
    tag = etag(me.user_id, me.session.operations_revision)
    if _has(if_none_match, tag):
        return _not_modified(tag)
    response.headers["ETag"] = tag
    rows = operations.list_operations(session, me.user_id, filters, after=page.position, limit=page.limit + 1)
    return page.cut(rows, operations.position)


@router.post(
    "",
    status_code=201,
    response_model=OperationPublic,
    responses=problems(IdempotencyKeyReused) | {201: {"headers": headers("Location", "ETag")}},
)
def create_operation(
    body: OperationCreate,
    me: OperationsWriter,
    session: SessionDep,
    services: ServicesDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Record an operation. With an Idempotency-Key the request can be repeated until an answer arrives."""
    attempt = attempt_of(me, services, idempotency_key, fingerprint("createOperation", body.model_dump_json().encode()))

    def create() -> Answer:
        made = operations.create_operation(session, me.user_id, body, attempt.now)
        about = {"Location": f"/api/operations/{made.id}", "ETag": etag(made.owner_id, made.revision)}
        return Answer(201, about, made.model_dump(mode="json"))

    answer = once(session, attempt, create)
    return JSONResponse(answer.body, answer.status, answer.headers)


@router.get("/changes", responses=problems(ResyncRequired))
def list_changes(
    request: Request, response: Response, me: OperationsReader, session: SessionDep, since: SinceDep
) -> Changes:
    """What changed after the revision `since`, in the order of the changes: an operation as it is now, or what is left
    of a deleted one. Apply them in this order, keep `next`, and ask again from there, at once while `more` is true.

    410 says that your copy cannot be brought up to date: empty it, and fill it with `full=true` from `since=0` until
    `more` is false.
    """
    known = since.known(me.session.operations_revision)
    changes = operations.read_changes(session, me.session, since=since.revision, limit=since.limit, known=known)
    if changes.more:
        also = {"full": "true", "began": known} if since.fills else {}
        url = request.url.include_query_params(since=changes.next, **also)
        response.headers["Link"] = f'<{url}>; rel="next"'
    return changes


@router.get("/summary", response_model=list[Total], responses=_NOT_MODIFIED)
def summarize_operations(
    me: OperationsReader, session: SessionDep, services: ServicesDep, if_none_match: IfNoneMatch = None
) -> Response:
    """Totals by type, instrument type and month (UTC), the latest month first."""
    owner_id, revision = me.user_id, me.session.operations_revision
    tag = etag(owner_id, revision)
    if _has(if_none_match, tag):
        return _not_modified(tag)

    def make() -> bytes:
        return _TOTALS.dump_json(operations.summarize(session, owner_id))

    content = services.cache.get_or_make(owner_id, revision, "summary", make)
    return Response(content, headers={"ETag": tag}, media_type="application/json")


@router.get(
    "/{operation_id}",
    response_model=OperationPublic,
    responses={**_NOT_MODIFIED, **problems(OperationNotFound)},
)
def read_operation(
    operation_id: RowId,
    response: Response,
    me: OperationsReader,
    session: SessionDep,
    if_none_match: IfNoneMatch = None,
) -> OperationPublic | Response:
    """One operation, with an ETag of its own."""
    operation = operations.read_operation(session, me.user_id, operation_id)
    tag = etag(operation.owner_id, operation.revision)
    return _not_modified(tag) if _has(if_none_match, tag) else _tagged(response, operation)


@router.put("/{operation_id}", responses=_CHANGE)
def replace_operation(
    operation_id: RowId,
    body: OperationCreate,
    response: Response,
    me: OperationsWriter,
    session: SessionDep,
    if_match: IfMatch = None,
) -> OperationPublic:
    """Replace all fields of an operation. One that changes nothing raises no revision."""
    current = operations.locked_operation(session, me.user_id, operation_id, if_match)
    return _tagged(response, operations.change_operation(session, current, dict(body), utcnow()))


@router.patch("/{operation_id}", responses=_CHANGE)
def update_operation(
    operation_id: RowId,
    body: OperationUpdate,
    response: Response,
    me: OperationsWriter,
    session: SessionDep,
    if_match: IfMatch = None,
) -> OperationPublic:
    """Change the fields that are sent. One that changes nothing raises no revision."""
    current = operations.locked_operation(session, me.user_id, operation_id, if_match)
    return _tagged(response, operations.change_operation(session, current, body.model_dump(), utcnow()))


@router.delete("/{operation_id}", status_code=204, responses=_CHANGE)
def delete_operation(operation_id: RowId, me: OperationsWriter, session: SessionDep, if_match: IfMatch = None) -> None:
    """Delete an operation. Its id and a revision stay, so that phones hear of it."""
    current = operations.locked_operation(session, me.user_id, operation_id, if_match)
    operations.delete_operation(session, current, utcnow())


def _has(sent: list[str] | None, tag: str) -> bool:
    return sent is not None and not if_none_match(sent, tag)


def _not_modified(tag: str) -> Response:
    return Response(status_code=304, headers={"ETag": tag})


def _tagged(response: Response, operation: OperationPublic) -> OperationPublic:
    response.headers["ETag"] = etag(operation.owner_id, operation.revision)
    return operation
