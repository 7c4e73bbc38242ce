"""A demonstration of the reference client: one person's phone and tablet, on a network that loses responses."""

import secrets
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from json import JSONDecodeError
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx

from app.core.settings import get_settings
from scripts.phone import Offline, Phone, SignedOut


class LossyTransport(httpx.HTTPTransport):
    """A network that delivers every request, and loses the responses to those that `loses` selects."""

    loses: Callable[[httpx.Request], bool] = staticmethod(lambda _request: False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if self.loses(request):
            answer.close()
            raise httpx.ReadError("the response was lost", request=request)
        return answer


DEMO_CREDENTIALS = ("demo@example.com", "violet-tandem-harbor")  # scripts/demo.py
OPERATION = {"type": "buy", "instrument_type": "etf", "figi": "BBG000BDTBL9", "date": "2026-11-24T12:00:00Z"}


def demo(url: str | None) -> None:
    """Show everything once; the ledger is the same afterward."""
    url = (url or f"http://127.0.0.1:{get_settings().port}").rstrip("/")
    with TemporaryDirectory() as folder:
        try:
            show(url, Path(folder))
        except (Offline, httpx.HTTPError, httpx.InvalidURL, JSONDecodeError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            sys.exit(f"muster: {url}: {reason}. Is ./scripts/serve running there?")


def show(url: str, folder: Path) -> None:
    with closing(Phone(url, folder / "tablet.db")) as tablet:
        with closing(Phone(url, folder / "phone.db", transport=(network := LossyTransport()))) as phone:
            email, password = account(url, tablet)
            sign_in(url, phone, email, password, name="demo: phone")
            phone.sync()
            before = len(phone.copy)
            print(f"Signed in      as {email} on a phone and a tablet; the phone has copied {before} operations")

            added = [phone.add(**OPERATION, quantity=quantity) for quantity in ("1", "2.5")]
            print(f"Offline        added two operations, shown at once as {added}; {len(phone.waiting)} are queued")
            phone.sync()
            print(f"Synced         the copy has {len(phone.copy) - before} more, and {len(phone.waiting)} are queued")

            added.append(phone.add(**OPERATION, quantity="3"))
            network.loses = lambda request: request.method == "POST"
            expect_lost(phone.sync)
            print("Lost response  the server recorded a third one, its response was lost, and the phone was killed")

        with closing(Phone(url, folder / "phone.db", transport=(network := LossyTransport()))) as phone:
            phone.sync()
            print(f"Repeated       with the stored Idempotency-Key: {len(phone.copy) - before} more, not 4")

            tablet.sync()
            newest = max(tablet.copy)
            tablet.edit(newest, quantity="4")
            tablet.sync()
            phone.sync()
            print(f"Other device   the tablet set a quantity to 4; the phone now has {phone.copy[newest]['quantity']}")

            network.loses = lambda request: request.url.path == "/api/auth/token"
            old = phone.access
            expect_lost(lambda: phone.refresh(old))
            network.loses = LossyTransport.loses
            phone.refresh(old)
            print("Refreshed      the response was lost, the same refresh token was sent again: still signed in")

            for number in added:
                phone.delete(number)
            phone.sync()
            tablet.sync()
            if phone.copy != tablet.copy or len(phone.copy) != before:
                sys.exit("muster: the copies differ")
            print("Deleted        all three; phone and tablet have the same copy, and sign out")
            phone.sign_out()
            tablet.sign_out()


def account(url: str, device: Phone) -> tuple[str, str]:
    """Sign in to the demo account, or to a new one where there is none."""
    email, password = DEMO_CREDENTIALS
    try:
        sign_in(url, device, email, password, name="demo: tablet")
    except SignedOut:
        email, password = f"demo-{uuid4().hex[:12]}@example.com", secrets.token_urlsafe(16)
        httpx.post(f"{url}/api/auth/register", json={"email": email, "password": password}).raise_for_status()
        sign_in(url, device, email, password, name="demo: tablet")
    return email, password


def sign_in(url: str, device: Phone, email: str, password: str, *, name: str) -> None:
    """Sign in by password, or by code where the service takes no passwords from apps (PASSWORD_GRANT=off)."""
    metadata = httpx.get(f"{url}/.well-known/oauth-authorization-server").raise_for_status().json()
    if "password" in metadata["grant_types_supported"]:
        device.sign_in(email, password, device=name)
    else:
        sign_in_by_code(url, device, email, password, issuer=metadata["issuer"])


def sign_in_by_code(url: str, device: Phone, email: str, password: str, *, issuer: str) -> None:
    """Sign in by code as Swagger UI's client. A phone opens the page in its browser; here the demo is the browser."""
    verifier, redirect_uri = secrets.token_urlsafe(48), f"{issuer}/static/docs-signed-in.html"
    query = {
        "response_type": "code",
        "client_id": "swagger",
        "redirect_uri": redirect_uri,
        "code_challenge": urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    with httpx.Client(base_url=url, headers={"Origin": issuer}) as browser:
        browser.post("/sign-in", data={"username": email, "password": password})
        answer = browser.post("/authorize", params=query, data={"decision": "continue"})
        browser.post("/sign-out")
    codes = parse_qs(urlsplit(answer.headers.get("Location", "")).query).get("code")
    if codes is None:
        raise SignedOut("The password is wrong.")
    device.sign_in_by_code(codes[0], verifier=verifier, client_id="swagger", redirect_uri=redirect_uri)


def expect_lost(action: Callable[[], None]) -> None:
    try:
        action()
    except Offline:
        return
    sys.exit("muster: the response should have been lost")
