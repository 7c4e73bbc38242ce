"""The chat over HTTP: history, long polling, server-sent events, and writing.

These and the sockets (app/routers/chat_ws.py) read one sequence of numbers (docs/decisions/0009-chat.md).
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

import anyio
from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlmodel import col, select, tuple_

from app.chat.hub import CHAT_SCOPE
from app.chat.messages import Message, read_messages
from app.chat.subscribers import CloseReason
from app.core.errors import IdempotencyKeyReused, InvalidToken
from app.dependencies import LIMIT_CHAT, PageDep, ServicesDep, SessionDep, next_page, requires
from app.http.openapi import Responses, problems
from app.http.rate_limit import by_network
from app.http.routing import Router
from app.models.base import MAX_ID
from app.models.chat import ChatMessageCreate, ChatMessagePublic, ChatRoom, ChatRoomPublic, HistoryQuery, RoomQuery
from app.oauth2.resource_server import Caller
from app.services import Services

router = Router(prefix="/api/chat", tags=["chat"])

Me = Annotated[Caller, requires(CHAT_SCOPE)]
Room = Annotated[RoomQuery, Query()]
History = Annotated[HistoryQuery, Query()]
_WINS = "The number of the last message that you received; takes precedence over `after`."
LastEventId = Annotated[int | None, Header(ge=0, le=MAX_ID, description=_WINS, examples=[12])]

_EVENTS = "text/event-stream"
_UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_DESCRIPTION = "The messages as they come: events with the id `number`, the name `message`, and this as data."
# The schema of an event's data: OpenAPI 3.1 has none for streams, and generators that know streams expect this.
_CONTENT = {_EVENTS: {"schema": {"$ref": "#/components/schemas/ChatMessagePublic"}}}
_STREAM: Responses = {200: {"description": _DESCRIPTION, "content": _CONTENT}}


@router.post("/messages", status_code=201, responses=problems(IdempotencyKeyReused))
@LIMIT_CHAT
def create_message(body: ChatMessageCreate, me: Me, session: SessionDep, services: ServicesDep) -> ChatMessagePublic:
    """Write a message. With a client_message_id you can repeat the request until it succeeds: it is stored once."""
    public, _is_new = services.chat.post(session, me, body)
    return public


@router.get("/rooms")
def list_rooms(_me: Me, session: SessionDep, page: PageDep) -> list[ChatRoomPublic]:
    """The rooms in which somebody has written, latest message first."""
    order = (col(ChatRoom.last_message_at), col(ChatRoom.name))
    rooms = select(ChatRoom).order_by(*(column.desc() for column in order)).limit(page.limit + 1)
    if page.position:
        rooms = rooms.where(tuple_(*order) < (datetime.fromisoformat(page.position[0]), page.position[1]))
    rows = page.cut(session.exec(rooms), lambda room: [room.last_message_at.isoformat(), room.name])
    return [ChatRoomPublic.model_validate(row) for row in rows]


@router.get("/messages", response_model=list[ChatMessagePublic])
async def list_messages(request: Request, me: Me, services: ServicesDep, query: History) -> Response:
    """The messages of a room in the order of their numbers: after one, before one, or the latest. With `wait`, a
    response that would be empty is sent as soon as there is a message, or empty after that time (long polling)."""
    limit = query.limit
    bounds = {"after": query.after, "before": query.before}
    messages = await services.database.chat_read(None, read_messages, query.room, **bounds, limit=limit + 1)
    if not messages and query.wait and query.before is None:
        messages = await _next_messages(request, services, me, query)
    headers = {}
    if len(messages) > limit:
        messages = messages[1:] if query.after is None else messages[:-1]
        name, number = ("before", messages[0].number) if query.after is None else ("after", messages[-1].number)
        headers = next_page(request, name, str(number))
    content = f"[{','.join(message.json for message in messages)}]"
    return Response(content, headers=headers, media_type="application/json")


async def _next_messages(request: Request, services: Services, me: Caller, query: HistoryQuery) -> list[Message]:
    """The first messages that arrive within the wait, or none if the client leaves, the service stops or the session
    has lost the scope."""
    messages: list[Message] = []
    async with services.chat.subscribe(me, by_network(request), room=query.room, after=query.after or 0) as subscriber:
        with anyio.move_on_after(query.wait):
            while not (messages or subscriber.close_reason or await request.is_disconnected()):
                messages = (await services.chat.next_messages(subscriber, idle=1))[: query.limit]
    if subscriber.close_reason is CloseReason.SIGNED_OUT:
        raise InvalidToken
    return messages


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def follow_messages(
    request: Request, me: Me, services: ServicesDep, query: Room, last_event_id: LastEventId = None
) -> StreamingResponse:
    """A room as server-sent events: the messages after the number `after`, or new ones. A browser's EventSource resumes
    by itself. The stream ends when the access token expires or you read too slowly: resume with a new token."""
    network = by_network(request)
    after = query.after if last_event_id is None else last_event_id
    services.chat.admit(me, network)

    async def events() -> AsyncIterator[bytes]:
        async with services.chat.subscribe(me, network, room=query.room, after=after) as subscriber:
            yield f": the last number is {subscriber.start}\n\n".encode()
            while subscriber.close_reason is None:
                messages = await services.chat.next_messages(subscriber, idle=15)
                # After 15 seconds of silence, a comment shows that the stream is alive.
                yield b"".join(message.event for message in messages) or b":\n\n"

    return StreamingResponse(events(), media_type=_EVENTS, headers=_UNBUFFERED)
