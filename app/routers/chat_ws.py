"""The chat over a WebSocket.

docs/api/chat.md describes the protocol: how to send the token, the frames, how to resume, and the close codes.
"""

import json
from contextlib import suppress
from typing import Any

import anyio
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnected

from app.authentication import authenticate_socket, bearer, presented
from app.chat.hub import SCOPE, ChatHub
from app.chat.subscribers import Ending, Reader
from app.core.concurrency import in_thread
from app.core.errors import AppError, Unauthenticated, problem
from app.core.strict_json import parse
from app.dependencies import join_chat
from app.http.cookies import cookie_token
from app.http.error_handlers import classify
from app.http.rate_limit import client_address, network
from app.http.routing import Router
from app.models.chat import LOBBY, ChatFrame, ChatMessageCreate, Number, RoomName
from app.oauth2.authorization_server import Caller
from app.services import Services, services_of

router = Router("/api/chat", tags=["chat"])

TIME_FOR_TOKEN = 10  # seconds
BINARY, WRONG, BROKEN = 1003, 1008, 1011
_CODES = {401: Ending.SIGNED_OUT, 403: Ending.FORBIDDEN, 409: Ending.FORBIDDEN, 422: WRONG, 500: BROKEN}
_REASONS = {
    Ending.STOPPING: "The service stops. Resume after the last number that you saw.",
    Ending.SLOW: "You read too slowly. Resume after the last number that you saw.",
    Ending.SIGNED_OUT: "The access token has expired or is revoked.",
    Ending.FORBIDDEN: "This needs the scope chat.",
    BINARY: "A frame is text.",
}
# After one failed send, starlette raises the second at the next.
_GONE = (WebSocketDisconnect, WebSocketDisconnected)
_ROOM: TypeAdapter[str] = TypeAdapter(RoomName)
_AFTER: TypeAdapter[int | None] = TypeAdapter(Number | None)


@router.websocket("/ws")
async def chat_by_socket(websocket: WebSocket) -> None:
    try:
        await websocket.accept()
        code = await _serve(websocket)
        reason = _REASONS.get(code, "") if code else ""
    except _GONE:
        return
    except Exception as error:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        refusal = await classify(websocket, first)
        code, reason = _CODES.get(refusal.status, Ending.SLOW), refusal.detail
    if code is not None:
        with suppress(*_GONE):
            await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


async def _serve(websocket: WebSocket) -> int | None:
    """Until it ends; the code to close it with, if it is not closed already."""
    services = services_of(websocket)
    room, after, caller = await _opened(websocket, services)
    code = None
    async with join_chat(services, caller, room, after) as reader:
        with reader.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_send_messages, websocket, services.chat, reader)
                code = await _take_messages(websocket, services, caller, room)
                tasks.cancel_scope.cancel()
    return reader.ending or code


async def _opened(websocket: WebSocket, services: Services) -> tuple[str, int | None, Caller]:
    """What is asked for and by whom, counted by session; by network where it comes to nothing."""
    try:
        room, after = _asked(websocket)
        caller = await authenticate_socket(websocket, await _token(websocket), SCOPE)
    except Exception:
        await in_thread(services.chat_limits.opening, network(client_address(websocket)))
        raise
    await in_thread(services.chat_limits.opening, str(caller.session_id))
    return room, after, caller


def _asked(connection: HTTPConnection) -> tuple[str, int | None]:
    query = connection.query_params
    try:
        return _ROOM.validate_python(query.get("room", LOBBY)), _AFTER.validate_python(query.get("after"))
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("query", "room or after")} for each in error.errors()]) from None


async def _token(websocket: WebSocket) -> str | Caller:
    """The access token of a socket, from whichever place has it; a token of the identity provider: who bears it."""
    if "authorization" in websocket.headers or cookie_token(websocket, services_of(websocket).settings):
        return await bearer(websocket)
    frame: Any = None
    with anyio.move_on_after(TIME_FOR_TOKEN), suppress(ValueError, KeyError):
        frame = parse((await websocket.receive_text()).encode())
    if not isinstance(frame, dict) or not isinstance(frame.get("token"), str):
        raise Unauthenticated('Send an Authorization header, or {"token": "…"} as the first frame.')
    return await presented(websocket, frame["token"])


async def _send_messages(websocket: WebSocket, chat: ChatHub, reader: Reader) -> None:
    with suppress(*_GONE):  # whoever takes its messages hears of that too
        await websocket.send_json({"type": "ready", "room": reader.room, "last": reader.start})
        async for batch in chat.follow(reader):
            for message in batch:
                await websocket.send_text(message.frame)


async def _take_messages(websocket: WebSocket, services: Services, caller: Caller, room: str) -> int | None:
    """Until the client leaves, or sends what no client of ours would: then the code to close with."""
    with suppress(*_GONE):
        while True:
            received = await websocket.receive()
            if received["type"] == "websocket.disconnect":
                break
            if received.get("text") is None:
                return BINARY
            if answer := await _post(websocket, services, caller, room, received["text"]):
                await websocket.send_json(answer)
    return None


async def _post(
    websocket: WebSocket, services: Services, caller: Caller, room: str, text: str
) -> dict[str, Any] | None:
    """What the sender alone is told: why a frame was refused, or that it is stored already."""
    frame: Any = None
    try:
        await in_thread(services.chat_limits.message, caller.user_id)
        frame = _parsed(text)
        body = ChatMessageCreate(**dict(_validated(frame)), room=room)
        database = services.database
        author = (caller.user_id, caller.session.name)
        public, is_new = await database.run(database.chat_write_side, None, services.chat.post, *author, body)
    except Exception as error:
        return _error(await classify(websocket, error), frame)
    return None if is_new else {"type": "stored", **public.model_dump(mode="json")}


def _parsed(text: str) -> Any:
    try:
        return parse(text.encode())
    except json.JSONDecodeError as error:
        mistake = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "", "ctx": {"error": error.msg}}
        raise RequestValidationError([mistake]) from None


def _validated(frame: Any) -> ChatFrame:
    try:
        return ChatFrame.model_validate(frame)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None


def _error(refusal: AppError, frame: Any) -> dict[str, Any]:
    client_id = frame.get("client_message_id") if isinstance(frame, dict) else None
    wait = {"retry_after": int(refusal.headers["Retry-After"])} if "Retry-After" in refusal.headers else {}
    known = client_id if isinstance(client_id, str) and len(client_id) <= 64 else None
    return {"type": "error", "client_message_id": known, "problem": {**problem(refusal), **wait}}
