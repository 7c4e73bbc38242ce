"""A simulated browser for tests of the cookie transport: it keeps the cookie and sends Origin."""

from datetime import timedelta
from http.cookies import SimpleCookie

import httpx

from tests.support.servers import Account, Muster, Tokens
from tests.support.sessions import make_older, sign_cookie

LOGIN, LOGOUT = "/api/auth/cookie/login", "/api/auth/cookie/logout"


class Browser:
    """Keeps the cookie and says where its requests come from, as browsers do."""

    def __init__(self, muster: Muster, origin: str | None = None) -> None:
        self.muster = muster
        self.origin = origin or muster.url
        self.cookie = ""

    def sign_in(self, account: Account, **form: str) -> "Browser":
        answer = self.log_in(account, **form)
        assert (answer.status_code, answer.content) == (204, b""), answer.text
        return self

    def log_in(self, account: Account, **form: str) -> httpx.Response:
        return self.call("POST", LOGIN, data={"username": account.email, "password": account.password, **form})

    def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **request: object
    ) -> httpx.Response:
        """Send a request with the cookie and the Origin, or with `headers` in place of the Origin."""
        sent = {"Origin": self.origin} if headers is None else headers
        if self.cookie:
            sent = {"Cookie": self.cookie, **sent}
        answer = self.muster.client.request(method, path, headers=sent, **request)  # type: ignore[arg-type]
        for header in answer.headers.get_list("set-cookie"):
            self.cookie = header.partition(";")[0]
        return answer

    @property
    def token(self) -> Tokens:
        """The token in the cookie."""
        return Tokens(access_token=self.cookie.partition("=")[2])


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    """The only cookie of a response: its name, its value and its attributes."""
    (header,) = answer.headers.get_list("set-cookie")
    ((name, morsel),) = SimpleCookie(header).items()
    return {"name": name, "value": morsel.value, **{key: str(value) for key, value in morsel.items() if value}}


def signed_in(account: Account) -> Browser:
    """A browser with a session's cookie, for which no password is hashed."""
    browser = Browser(account.muster)
    browser.cookie = account.cookie()
    return browser


def let_pass(muster: Muster, browser: Browser, age: timedelta) -> None:
    """Let time pass for the session and for the token in its cookie."""
    browser.cookie = f"muster={sign_cookie(browser.token, age=int(age.total_seconds()))}"
    make_older(muster, browser.token, age=age)
