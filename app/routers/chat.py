"""The chat over plain HTTP: history, long polling, server-sent events, and writing. app/routers/chat_ws.py has the
sockets; all three read one sequence of numbers (docs/decisions/0009-chat.md)."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.chat.hub import SCOPE
from app.chat.messages import Message
from app.chat.subscribers import Ending
from app.core.errors import IdempotencyKeyReused, InsufficientScope, Invalid, InvalidToken
from app.dependencies import ChatReader, ChatUser, ServicesDep, SessionDep, join_chat
from app.http.openapi import problems
from app.http.routing import Router
from app.models.base import MAX_PAGE
from app.models.chat import LOBBY, ChatMessageCreate, ChatMessagePublic, Number, RoomName
from app.oauth2.authorization_server import Caller
from app.services import Services

router = Router("/api/chat", tags=["chat"])

LONGEST_WAIT = 25  # seconds
PING = 15  # seconds of silence in a stream before a comment shows that it lives

RoomQuery = Annotated[
    RoomName, Query(description="A slug. A room exists once a message is written in it.", examples=[LOBBY])
]
After = Annotated[Number | None, Query(description="Only messages with a greater number, the first ones after it.")]
Before = Annotated[Number | None, Query(description="Only messages with a smaller number, the last ones before it.")]

_EVENTS = "text/event-stream"
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The messages as they come, each an event with its number as id and its JSON as data.",
        "content": {_EVENTS: {"schema": {"type": "string"}, "example": 'id: 12\nevent: message\ndata: {"id": 7}\n\n'}},
    }
}


@router.post("/messages", status_code=201, responses=problems(IdempotencyKeyReused))
def create_message(
    body: ChatMessageCreate, me: ChatUser, session: SessionDep, services: ServicesDep
) -> ChatMessagePublic:
    """Write a message. With a client_message_id it can be sent again until an answer arrives, and is one message."""
    services.chat_limits.message(me.user_id)
    public, _is_new = services.chat.post(session, me.user_id, me.session.name, body)
    return public


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of a room's history."""

    room: str
    after: int | None
    before: int | None
    limit: int


async def asked_for(
    room: RoomQuery = LOBBY,
    after: After = None,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="The number of rows at most.")] = 50,
) -> Asked:
    if after is not None and before is not None:
        raise Invalid.at("query", "before", message="Send after or before, not both.")
    return Asked(room, after, before, limit)


@router.get("/messages", response_model=list[ChatMessagePublic])
async def list_messages(
    request: Request,
    me: ChatReader,
    services: ServicesDep,
    asked: Annotated[Asked, Depends(asked_for)],
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=LONGEST_WAIT,
            description="Seconds to wait for a message if there is none yet.",
            examples=[LONGEST_WAIT],
        ),
    ] = 0,
) -> Response:
    """The messages of a room in the order of their numbers: after one, before one, or the newest. With `wait` an answer
    that would be empty comes as soon as there is a message (long polling), or empty after that time."""
    limit = asked.limit
    found = await services.chat.read(asked.room, after=asked.after, before=asked.before, limit=limit + 1)
    if not found and wait and asked.before is None:
        found = await _next_messages(request, services, me, asked, wait)
    headers = {}
    if len(found) > limit:
        found = found[1:] if asked.after is None else found[:-1]
        cut = {"before": found[0].number} if asked.after is None else {"after": found[-1].number}
        headers["Link"] = f'<{request.url.include_query_params(**cut)}>; rel="next"'
    content = f"[{','.join(message.json for message in found)}]"
    return Response(content, headers=headers, media_type="application/json")


async def _next_messages(request: Request, services: Services, me: Caller, asked: Asked, wait: float) -> list[Message]:
    """Those that come first, within `wait` seconds; none when the client leaves, or the service ends."""
    found: list[Message] = []
    async with join_chat(services, me, asked.room, asked.after or 0) as reader:
        with anyio.move_on_after(wait):
            async with aclosing(services.chat.follow(reader, every=1)) as batches:
                async for batch in batches:
                    found = batch[: asked.limit]
                    if found or await request.is_disconnected():
                        break
    if reader.ending is Ending.SIGNED_OUT:
        raise InvalidToken
    if reader.ending is Ending.FORBIDDEN:
        raise InsufficientScope(SCOPE)
    return found


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def follow_messages(
    me: ChatReader,
    services: ServicesDep,
    room: RoomQuery = LOBBY,
    after: After = None,
    last_event_id: Annotated[
        Number | None, Header(description="The number of the last message that you received; it wins over `after`.")
    ] = None,
) -> StreamingResponse:
    """A room as server-sent events, from the number `after` on, or from now. A browser's EventSource resumes by itself.
    The stream ends when the access token does, or when you read too slowly: resume with a new one."""
    services.chat.admit(me.user_id)
    events = _events(services, me, room, after if last_event_id is None else last_event_id)
    return StreamingResponse(
        events, media_type=_EVENTS, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _events(services: Services, me: Caller, room: str, after: int | None) -> AsyncIterator[bytes]:
    async with join_chat(services, me, room, after) as reader:
        yield f": the last number is {reader.start}\n\n".encode()
        async with aclosing(services.chat.follow(reader, every=PING)) as batches:
            async for batch in batches:
                yield b"".join(message.event for message in batch) or b":\n\n"
