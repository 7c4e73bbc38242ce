"""Operations as CSV: exported as a stream of any length, imported as a whole or not at all."""

from collections.abc import AsyncIterator
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlmodel import Session

from app.core.concurrency import in_thread
from app.core.errors import IdempotencyKeyReused, InvalidToken
from app.dependencies import IdempotencyKey, LedgerQuery, ServicesDep, requires
from app.http.openapi import Responses, problems
from app.http.routing import Router
from app.ledger import csv_format, imports, operations
from app.ledger.idempotency import IdempotentRequest, earlier_body, respond_once
from app.models.base import utcnow
from app.models.operation import Imported, OperationFilter
from app.oauth2.refresh_tokens import live_scopes
from app.oauth2.resource_server import Caller
from app.services import Services

CSV = "text/csv"
_EXAMPLE = "type,instrument_type,figi,quantity,date\r\nsell,btc,BBG000B9XRY4,10,2023-10-26T08:29:31Z\r\n"
_TEXT = {CSV: {"schema": {"type": "string"}, "example": _EXAMPLE}}
_EXPORT: Responses = {200: {"description": "The operations, newest first.", "content": _TEXT}}
# Bytes come first, because generated clients can send them: in Dart they send text/csv as JSON, in Kotlin and Swift
# they cannot send it at all.
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FILE = {"requestBody": {"required": True, "content": _BYTES | _TEXT}}
_REUSED = problems(IdempotencyKeyReused)

router = Router(prefix="/api/operations", tags=["operations"])

Reader = Annotated[Caller, requires("operations:read")]
Writer = Annotated[Caller, requires("operations:write")]


@router.get("/export", response_class=StreamingResponse, responses=_EXPORT)
def export_operations(me: Reader, filters: LedgerQuery, services: ServicesDep) -> StreamingResponse:
    """Your operations as CSV, newest first: all of them, or those that the filters select.

    A cell that a spreadsheet would evaluate as a formula is prefixed with an apostrophe, which the import removes.
    """
    headers = {"Content-Disposition": 'attachment; filename="operations.csv"'}
    return StreamingResponse(_stream(me, filters, services), media_type=CSV, headers=headers)


async def _stream(me: Caller, filters: OperationFilter, services: Services) -> AsyncIterator[bytes]:
    """Read each batch in a session of its own, closed before the batch is sent: a slow client holds no connection."""

    def read(session: Session, after: list[str] | None) -> tuple[bytes, list[str] | None]:
        rows, last = operations.read_batch(session, me.user_id, filters, after)
        # Checked after the rows are read: those of an account that was deleted meanwhile are gone, and the part that
        # was sent would pass for the whole.
        if "operations:read" not in live_scopes(session, [me.session_id], utcnow()).get(me.session_id, ()):
            raise InvalidToken
        return csv_format.encode(rows), last

    yield csv_format.HEADER
    lines, after = await services.database.read(None, read, None)
    yield lines
    while after is not None:
        lines, after = await services.database.read(None, read, after)
        yield lines


@router.post("/import", status_code=201, response_model=Imported, responses=_REUSED, openapi_extra=_FILE)
async def import_operations(
    request: Request, me: Writer, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Record the operations of a CSV file in the format of the export: all of them or, if a line is invalid, none.

    The file may be one that a spreadsheet saved, with semicolons, tabs or decimal commas.
    The column `instrument_type` is optional, and its cells may be empty. With an Idempotency-Key you can repeat the
    request until you receive a response.
    """
    with SpooledTemporaryFile(256 * 1024) as file:  # bytes; larger ones wait for their turn on the disk
        async for chunk in request.stream():
            file.write(chunk)
        async with services.import_bulkhead.enter(str(me.user_id)):
            content, rows = await in_thread(_decode, file)
            idempotent = IdempotentRequest(me.user_id, idempotency_key, "importOperations", content, utcnow())
            if services.settings.on_sqlite and len(rows) > imports.BATCH:
                imported = await _import_in_batches(services, idempotent, rows)
            else:
                write = partial(imports.import_operations, owner_id=me.user_id, rows=rows, now=idempotent.now)
                imported = await services.database.write(request, respond_once, idempotent, write)
    return JSONResponse(imported, 201)


def _decode(file: IO[bytes]) -> tuple[bytes, imports.FileRows]:
    file.seek(0)
    content = file.read()
    return content, imports.by_date(csv_format.decode(content))


async def _import_in_batches(services: Services, request: IdempotentRequest, rows: imports.FileRows) -> dict[str, Any]:
    """Stage the rows in short transactions, since SQLite has one writer, and publish them all in the last one.

    What a killed process has staged is deleted by the daily purge.
    """
    database, owner_id = services.database, request.owner_id
    if request.key and (earlier := await database.read(None, earlier_body, request)):
        return earlier
    staged = imports.staged_revisions(len(rows))
    batches = [slice(start, start + imports.BATCH) for start in range(0, len(rows), imports.BATCH)]
    try:
        for batch in batches:
            await database.write(None, imports.stage_operations, owner_id, rows[batch], request.now, staged[batch])
        publish = partial(imports.publish_operations, owner_id=owner_id, staged=staged)
        return await database.write(None, respond_once, request, publish)
    except Exception:
        for batch in batches:
            await database.write(None, imports.discard_operations, owner_id, staged[batch])
        raise
