"""The chat over a WebSocket.

docs/api/chat.md describes the protocol: how to send the token, the frames, how to resume, and the close codes.
"""

import json
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlmodel import SQLModel
from starlette.websockets import WebSocketDisconnected

from app.authentication import authenticate, bearer
from app.chat.hub import CHAT_SCOPE, ChatHub
from app.chat.subscribers import CloseReason, Subscriber
from app.core.concurrency import in_thread
from app.core.errors import AppError, Unauthenticated, UnsupportedMediaType, found, problem
from app.core.settings import get_settings
from app.core.strict_json import parse
from app.dependencies import LIMIT_CHAT
from app.http.cookies import cookie_token
from app.http.error_handlers import classify
from app.http.middleware import check_client_version
from app.http.rate_limit import RouteLimit, by_network, by_session, counter
from app.http.routing import Router
from app.models.chat import ChatFrame, ChatMessageCreate, RoomQuery
from app.oauth2.resource_server import Caller
from app.services import services_of

router = Router(prefix="/api/chat", tags=["chat"])

SIGNED_OUT, FORBIDDEN = CloseReason.SIGNED_OUT, CloseReason.FORBIDDEN
# The close codes of errors, by status: 1008 for the client's mistakes, 1003 for binary frames, 1011 for our own failure
# (RFC 6455 section 7.4.1), 4426 for an app that is too old. All other errors are 1013, try again later.
_CODES = {400: 1008, 401: SIGNED_OUT, 403: FORBIDDEN, 409: FORBIDDEN, 415: 1003, 422: 1008, 426: 4426, 500: 1011}
_REASONS: dict[int, str] = {
    CloseReason.STOPPING: "The service is stopping. Resume after the last number that you received.",
    CloseReason.SLOW: "You read too slowly. Resume after the last number that you received.",
    SIGNED_OUT: "The access token has expired or was revoked.",
    FORBIDDEN: "The token lacks the scope chat.",
}
# Starlette raises the first when a send fails, and the second at the next send.
_GONE = (WebSocketDisconnect, WebSocketDisconnected)

_count_message = counter("message", LIMIT_CHAT)
_count_socket = counter("socket", RouteLimit(get_settings().limit_default, by_session, kind="socket"))

M = TypeVar("M", bound=SQLModel)


@router.websocket("/ws")
async def chat_by_socket(websocket: WebSocket) -> None:
    try:
        await websocket.accept()
        code = await _serve(websocket)
        reason = _REASONS[code] if code else ""
    except Exception as error:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        if isinstance(first, _GONE):
            return
        refusal = classify(websocket, first)
        code, reason = _CODES.get(refusal.status, 1013), refusal.detail
    if code is not None:
        with suppress(*_GONE):
            await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))


async def _serve(websocket: WebSocket) -> int | None:
    """Serve the socket until it ends, and return the close code unless the client has closed it."""
    services = services_of(websocket)
    try:
        check_client_version(websocket.scope, services.settings)
        query = _validate(RoomQuery, dict(websocket.query_params), "query")
        caller = await authenticate(websocket, await _token(websocket), [CHAT_SCOPE])
    except Exception:  # not `finally`: a canceled socket is not counted
        await in_thread(_count_socket, websocket)
        raise
    # Sockets count by session or, if authentication failed, by network.
    await in_thread(_count_socket, websocket)
    async with services.chat.subscribe(caller, by_network(websocket), room=query.room, after=query.after) as subscriber:
        with subscriber.scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_send_messages, websocket, services.chat, subscriber)
                await _receive_messages(websocket, caller, query.room)
                tasks.cancel_scope.cancel()
    return subscriber.close_reason


async def _token(websocket: WebSocket) -> str:
    """The access token from the header, the cookie or the first frame."""
    if "authorization" in websocket.headers or cookie_token(websocket, services_of(websocket).settings):
        return await bearer(websocket)
    frame: Any = None
    with anyio.move_on_after(10), suppress(ValueError, KeyError):  # 10 seconds; a binary frame is a KeyError
        frame = parse((await websocket.receive_text()).encode())
    if not isinstance(frame, dict) or not isinstance(token := frame.get("token"), str):
        raise Unauthenticated('Send an Authorization header, or {"token": "…"} as the first frame.')
    return token


async def _send_messages(websocket: WebSocket, chat: ChatHub, subscriber: Subscriber) -> None:
    with suppress(*_GONE):  # _receive_messages notices it too
        await websocket.send_json({"type": "ready", "room": subscriber.room, "last": subscriber.start})
        while subscriber.close_reason is None:
            for message in await chat.next_messages(subscriber):
                await websocket.send_text(message.frame)


async def _receive_messages(websocket: WebSocket, caller: Caller, room: str) -> None:
    """Store the client's messages until it leaves."""
    while (received := await websocket.receive())["type"] != "websocket.disconnect":
        text = found(received.get("text"), UnsupportedMediaType("Send text frames only."))
        if answer := await _post(websocket, caller, room=room, text=text):
            await websocket.send_json(answer)


async def _post(websocket: WebSocket, caller: Caller, *, room: str, text: str) -> dict[str, Any] | None:
    """Store a message. Returns a frame for its sender if it was refused, or had been stored before."""
    services, frame = services_of(websocket), None
    try:
        try:
            frame = parse(text.encode())  # before it is counted: a refusal names the message
        except json.JSONDecodeError as error:
            mistake = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "", "ctx": {"error": error.msg}}
            raise RequestValidationError([mistake]) from None
        finally:
            await in_thread(_count_message, websocket)
        body = ChatMessageCreate(**dict(_validate(ChatFrame, frame, "body")), room=room)
        public, is_new = await services.database.chat_write(None, services.chat.post, caller, body)
    except Exception as error:
        return _error_frame(classify(websocket, error), frame)
    return None if is_new else {"type": "stored", **public.model_dump(mode="json")}


def _validate(model: type[M], value: Any, place: str) -> M:
    """Validate as FastAPI does for a route: `place` is where the value comes from."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": (place, *e["loc"])} for e in error.errors()]) from None


def _error_frame(refusal: AppError, frame: Any) -> dict[str, Any]:
    client_id = frame.get("client_message_id") if isinstance(frame, dict) else None
    wait = {"retry_after": int(refusal.headers["Retry-After"])} if "Retry-After" in refusal.headers else {}
    known = client_id if isinstance(client_id, str) and len(client_id) <= 64 else None
    return {"type": "error", "client_message_id": known, "problem": {**problem(refusal), **wait}}
