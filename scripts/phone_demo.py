"""The reference client at work: a phone and a tablet of one person, and a network that loses answers."""

import secrets
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx

from scripts.phone import Offline, Phone, SignedOut


class Lossy(httpx.HTTPTransport):
    """A network that carries each request to the server, and loses the answers to those that `loses` picks."""

    loses: Callable[[httpx.Request], bool] = staticmethod(lambda _request: False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if self.loses(request):
            answer.close()
            raise httpx.ReadError("the answer was lost", request=request)
        return answer


DEMO_ACCOUNT = ("demo@example.com", "violet-tandem-harbour")  # scripts/demo.py
OPERATION = {"type": "buy", "instrument_type": "etf", "figi": "BBG000BDTBL9", "date": "2026-11-24T12:00:00Z"}


def demo(url: str) -> None:
    """What `./scripts/phone.py --demo` runs: it leaves the ledger as it was."""
    with TemporaryDirectory() as folder:
        try:
            show(url, Path(folder))
        except Offline as error:
            sys.exit(f"muster: {url}: {error}")


def show(url: str, folder: Path) -> None:
    with closing(Phone(url, folder / "tablet.db")) as tablet:
        with closing(Phone(url, folder / "phone.db", transport=(network := Lossy()))) as phone:
            email, password = account(url, tablet)
            phone.sign_in(email, password, device="demo: phone")
            phone.sync()
            before = len(phone.copy)
            print(f"Signed in    {email}, a phone and a tablet; the phone has a copy of {before} operations")

            added = [phone.add(**OPERATION, quantity=quantity) for quantity in ("1", "2.5")]
            print(f"Offline      two operations added, shown at once as {added}; {len(phone.waiting)} wait to be sent")
            phone.sync()
            print(f"Synced       {len(phone.copy) - before} more in the copy, {len(phone.waiting)} wait to be sent")

            added.append(phone.add(**OPERATION, quantity="3"))
            network.loses = lambda request: request.method == "POST"
            expect_lost(phone.sync)
            print("Lost answer  the server has recorded a third one, its answer was lost, and the phone is killed")

        with closing(Phone(url, folder / "phone.db", transport=(network := Lossy()))) as phone:
            phone.sync()
            print(f"Repeated     with the Idempotency-Key that was stored: {len(phone.copy) - before} more, and not 4")

            tablet.sync()
            newest = max(tablet.copy)
            tablet.edit(newest, quantity="4")
            tablet.sync()
            phone.sync()
            print(f"Others       the tablet has set a quantity to 4; the phone has {phone.copy[newest]['quantity']}")

            network.loses = lambda request: request.url.path == "/api/auth/token"
            old = phone.access
            expect_lost(lambda: phone.refresh(old))
            network.loses = Lossy.loses
            phone.refresh(old)
            print("Refreshed    the answer was lost, the same refresh token sent again: still signed in")

            for number in added:
                phone.delete(number)
            phone.sync()
            tablet.sync()
            if phone.copy != tablet.copy or len(phone.copy) != before:
                sys.exit("muster: the copies differ")
            print("Deleted      all three; phone and tablet have the same copy, and sign out")
            phone.sign_out()
            tablet.sign_out()


def account(url: str, device: Phone) -> tuple[str, str]:
    """Sign in with the demo account, or else with one that is made for the occasion."""
    email, password = DEMO_ACCOUNT
    try:
        device.sign_in(email, password, device="demo: tablet")
    except SignedOut:
        email, password = f"demo-{uuid4().hex[:12]}@example.com", secrets.token_urlsafe(16)
        httpx.post(f"{url}/api/auth/register", json={"email": email, "password": password}).raise_for_status()
        device.sign_in(email, password, device="demo: tablet")
    return email, password


def expect_lost(action: Callable[[], None]) -> None:
    try:
        action()
    except Offline:
        return
    sys.exit("muster: the answer should have been lost")
