"""The operations ledger: your own operations, what changed since a revision, and totals."""

from typing import Annotated

from fastapi import Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, WithJsonSchema

from app.core import etags
from app.core.errors import IdempotencyKeyReused, OperationNotFound, PreconditionFailed, ResyncRequired
from app.dependencies import IdempotencyKey, LedgerQuery, PageDep, RowId, ServicesDep, SessionDep, next_link, requires
from app.http.openapi import Responses, located, problems
from app.http.routing import Router
from app.ledger import operations
from app.ledger.idempotency import IdempotentRequest, respond_once
from app.models.base import utcnow
from app.models.operation import Changes, ChangesQuery, OperationCreate, OperationPublic, OperationUpdate, Total
from app.oauth2.resource_server import Caller

router = Router(prefix="/api/operations", tags=["operations"])

Reader = Annotated[Caller, requires("operations:read")]
Writer = Annotated[Caller, requires("operations:write")]

_TAG = '"01935b0e-7c1a-7000-8000-0123456789ab.12"'
# Each header may be repeated; in the documentation it is one line of text.
ETags = Annotated[list[str] | None, WithJsonSchema({"type": "string", "examples": [_TAG]})]
IfMatch = Annotated[ETags, Header(description="The ETag of the version that you change: 412 if it is outdated.")]
IfNoneMatch = Annotated[ETags, Header(description="The ETag of the version that you have: 304 if it is current.")]

ChangesParameters = Annotated[ChangesQuery, Query()]

_TOTALS = TypeAdapter(list[Total])
_NOT_MODIFIED: Responses = {304: {"description": "Nothing has changed since your ETag."}}
_CREATED = problems(IdempotencyKeyReused) | located("/api/operations/7", "ETag")
_CHANGE = problems(OperationNotFound, PreconditionFailed)


@router.get("", response_model=list[OperationPublic], responses=_NOT_MODIFIED)
async def list_operations(
    response: Response,
    me: Reader,
    services: ServicesDep,
    filters: LedgerQuery,
    page: PageDep,
    if_none_match: IfNoneMatch = None,
) -> list[OperationPublic] | Response:
    """Your operations, newest first. The ETag covers the whole ledger: every change of yours changes it."""
    tag = etags.etag(me.user_id, me.session.operations_revision)
    if etags.names(if_none_match, tag):
        return _not_modified(tag)  # read with the session of the token: a phone that is up to date costs no query
    response.headers["ETag"] = tag
    query = operations.list_query(me.user_id, filters, page.position, page.limit + 1)
    rows = await services.database.list_reader.all(*query)  # short pages are read on the event loop
    return page.cut([OperationPublic.from_row(row) for row in rows], operations.position)


@router.post("", status_code=201, response_model=OperationPublic, responses=_CREATED)
def create_operation(
    body: OperationCreate, me: Writer, session: SessionDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Record an operation. With an Idempotency-Key you can repeat the request until you receive a response."""
    owner_id, now = me.user_id, utcnow()
    request = IdempotentRequest(owner_id, idempotency_key, "createOperation", body.model_dump_json().encode(), now)
    created = respond_once(session, request, lambda session: operations.create_operation(session, owner_id, body, now))
    tag = etags.etag(owner_id, created["revision"])
    return JSONResponse(created, 201, {"Location": f"/api/operations/{created['id']}", "ETag": tag})


@router.get("/changes", responses=problems(ResyncRequired))
def list_changes(
    request: Request, response: Response, me: Reader, session: SessionDep, query: ChangesParameters
) -> Changes:
    """The changes after the revision `since`, in their order: each operation as it is now, or the tombstone of a
    deleted one. Apply them in this order, store `next`, and continue from there, at once while `more`
    is true.

    410 means that your copy cannot be brought up to date: empty it, and fill it with `full=true` from `since=0` until
    `more` is false.
    """
    revision = me.session.operations_revision
    changes = operations.read_changes(session, me.user_id, query, revision)
    if changes.more:
        fill = {"full": "true", "began": query.known_up_to(revision)} if query.fills else {}
        response.headers["Link"] = next_link(request, since=changes.next, **fill)
    return changes


@router.get("/summary", response_model=list[Total], responses=_NOT_MODIFIED)
def summarize_operations(
    me: Reader, session: SessionDep, services: ServicesDep, filters: LedgerQuery, if_none_match: IfNoneMatch = None
) -> Response:
    """Totals of the operations that match, by type, instrument type and month (UTC), latest month first."""
    owner_id, revision = me.user_id, me.session.operations_revision
    tag = etags.etag(owner_id, revision)
    if etags.names(if_none_match, tag):
        return _not_modified(tag)

    def summarize() -> bytes:
        return _TOTALS.dump_json(operations.summarize(session, owner_id, filters))

    query = f"summary?{filters.model_dump_json(exclude_none=True)}"
    content = services.cache.get_or_make(owner_id, revision, query, summarize)
    return Response(content, headers={"ETag": tag}, media_type="application/json")


@router.get("/{operation_id}", response_model=OperationPublic, responses=_NOT_MODIFIED | problems(OperationNotFound))
def read_operation(operation_id: RowId, me: Reader, session: SessionDep, if_none_match: IfNoneMatch = None) -> Response:
    """One operation, with an ETag of its own."""
    operation = operations.read_operation(session, me.user_id, operation_id)
    return _not_modified(operation.etag) if etags.names(if_none_match, operation.etag) else _with_etag(operation)


@router.put("/{operation_id}", response_model=OperationPublic, responses=_CHANGE)
def replace_operation(
    operation_id: RowId, body: OperationCreate, me: Writer, session: SessionDep, if_match: IfMatch = None
) -> Response:
    """Replace all fields of an operation. If no value differs, the revision stays."""
    current = operations.locked_operation(session, me.user_id, operation_id, if_match)
    return _with_etag(operations.change_operation(session, current, dict(body), utcnow()))


@router.patch("/{operation_id}", response_model=OperationPublic, responses=_CHANGE)
def update_operation(
    operation_id: RowId, body: OperationUpdate, me: Writer, session: SessionDep, if_match: IfMatch = None
) -> Response:
    """Change the fields that are sent. If no value differs, the revision stays."""
    current = operations.locked_operation(session, me.user_id, operation_id, if_match)
    return _with_etag(operations.change_operation(session, current, body.model_dump(), utcnow()))


@router.delete("/{operation_id}", status_code=204, responses=_CHANGE)
def delete_operation(operation_id: RowId, me: Writer, session: SessionDep, if_match: IfMatch = None) -> None:
    """Delete an operation. Its id and a revision remain, so that clients with a copy learn of it."""
    current = operations.locked_operation(session, me.user_id, operation_id, if_match)
    operations.delete_operation(session, current, utcnow())


def _with_etag(operation: OperationPublic) -> Response:
    return Response(operation.model_dump_json(), headers={"ETag": operation.etag}, media_type="application/json")


def _not_modified(tag: str) -> Response:
    return Response(status_code=304, headers={"ETag": tag})
