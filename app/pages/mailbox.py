"""The development mailbox: the mails in the outbox, for the person at this machine.

The links in the mails sign people in, so main.py adds these routes in development only.
"""

from email import message_from_bytes, policy
from email.message import EmailMessage
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from app.core.concurrency import in_thread
from app.core.errors import NotFound, found
from app.core.settings import get_settings
from app.http.monitoring import is_from_this_machine
from app.pages.rendering import page, page_headers

# A mail contains its styles, and its links open in a new tab. It can do nothing else.
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox"
)


def _check_visitor(request: Request) -> None:
    """Refuse other machines, and sites whose name leads to this one (DNS rebinding)."""
    if not is_from_this_machine(request) or request.url.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise NotFound


router = APIRouter(prefix="/dev/mail", dependencies=[Depends(_check_visitor)])


@router.get("")
async def list_mails(request: Request) -> Response:
    return await page(request, "mailbox.html", mails=await in_thread(_newest_mails))


@router.get("/{mail_id:uuid}")
async def show_mail(request: Request, mail_id: UUID) -> Response:
    response = await page(request, "mailbox-mail.html", mail_id=mail_id, mail=await _read_mail(mail_id))
    response.headers["Content-Security-Policy"] = f"{page_headers()['content-security-policy']}; frame-src 'self'"
    return response


@router.get("/{mail_id:uuid}/html")
async def show_html(mail_id: UUID) -> Response:
    body = (await _read_mail(mail_id)).get_body(("html",))
    headers = {"Content-Security-Policy": MAIL_POLICY, "Cache-Control": "private, no-store"}
    return HTMLResponse(body.get_content() if body else "", headers=headers)


async def _read_mail(mail_id: UUID) -> EmailMessage:
    mails = await in_thread(_newest_mails, str(mail_id))
    return found(mails.get(str(mail_id)), NotFound)


def _newest_mails(name: str = "*") -> dict[str, EmailMessage]:
    """The newest 50 mails by name, or the one with this name."""
    folder = found(get_settings().outbox, NotFound)  # main.py adds these routes only if there is one
    files = sorted(folder.glob(f"{name}.eml"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return {file.stem: message_from_bytes(file.read_bytes(), policy=policy.default) for file in files[:50]}
