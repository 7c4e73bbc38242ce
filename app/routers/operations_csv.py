"""Operations as CSV: out as a stream of any length, in as one body, all or nothing."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Request, Response, Security
from fastapi.responses import JSONResponse, StreamingResponse
from sqlmodel import Session

from app.authentication import current_caller
from app.core.concurrency import in_thread
from app.core.errors import IdempotencyKeyReused
from app.core.settings import get_settings
from app.dependencies import IdempotencyKey, OperationFilters, OperationsReader, ServicesDep, attempt_of
from app.http.openapi import problems
from app.http.routing import Router
from app.ledger import csv_format, operations
from app.ledger.idempotency import Answer, fingerprint, once
from app.models.operation import Imported
from app.oauth2.authorization_server import Caller
from app.services import Services

BATCH = 1000
CSV = "text/csv"
_EXAMPLE = "type,instrument_type,figi,quantity,date\r\nsell,btc,BBG000B9XRY4,10,2023-10-26T08:29:31Z\r\n"
_TABLE = {"content": {CSV: {"schema": {"type": "string"}, "example": _EXAMPLE}}}

router = Router("/api/operations", tags=["operations"])


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "The operations, the newest first.", **_TABLE}},
)
def export_operations(me: OperationsReader, filters: OperationFilters, services: ServicesDep) -> StreamingResponse:
    """Your operations as CSV, the newest first, however many. What a spreadsheet would take for a formula begins with
    an apostrophe; the import takes it off again."""
    headers = {"Content-Disposition": 'attachment; filename="operations.csv"'}
    return StreamingResponse(_lines(me, filters, services), media_type=CSV, headers=headers)


async def _lines(me: Caller, filters: list[Any], services: Services) -> AsyncIterator[bytes]:
    """Each batch in a short session of its own, closed before it is sent: a slow reader holds nothing."""

    def read(session: Session, after: list[str] | None) -> tuple[bytes, list[str] | None]:
        rows = operations.list_operations(session, me.user_id, filters, after=after, limit=BATCH)
        return csv_format.encode(rows), operations.position(rows[-1]) if len(rows) == BATCH else None

    after: list[str] | None = None
    yield csv_format.header()
    while True:
        lines, after = await services.database.read(None, read, after)
        yield lines
        if after is None:
            break


@router.post(
    "/import",
    status_code=201,
    response_model=Imported,
    responses=problems(IdempotencyKeyReused),
    openapi_extra={"requestBody": {"required": True, **_TABLE}},
    max_body_size=get_settings().import_max_body,
)
async def import_operations(
    request: Request,
    me: Annotated[Caller, Security(current_caller, scopes=["operations:write"])],
    services: ServicesDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Record the operations of a CSV file such as the export gives: all of them, or none and the line that is wrong.

    `instrument_type` may be missing or empty. With an Idempotency-Key the request can be repeated until an answer
    arrives.
    """
    content = await request.body()
    async with services.import_bulkhead.enter():
        return await _import(request, me, services, content, idempotency_key)


async def _import(request: Request, me: Caller, services: Services, content: bytes, key: str | None) -> Response:
    rows = await in_thread(csv_format.decode, content)
    attempt = attempt_of(me, services, key, fingerprint("importOperations", content))

    def write(session: Session) -> Answer:
        def work() -> Answer:
            imported = operations.import_operations(session, attempt.owner_id, rows, attempt.now)
            return Answer(201, {}, imported.model_dump())

        return once(session, attempt, work)

    answer = await services.database.write(request, write)
    return JSONResponse(answer.body, answer.status, answer.headers)
