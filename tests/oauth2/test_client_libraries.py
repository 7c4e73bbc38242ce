"""Clients and services that we did not write: Authlib, openid-client, AppAuth-JS (row P7), and a verifier."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.conversations import shown
from tests.support.cookie_browser import signed_in
from tests.support.databases import fresh_database
from tests.support.nodejs import run_script
from tests.support.oauth_clients import App
from tests.support.rsa_keys import key_file
from tests.support.servers import NO_TLS, Account, Muster, Tokens, claims_of

pytestmark = [pytest.mark.one_database, pytest.mark.slow]

AUDIENCE = "muster"


@pytest.fixture(scope="module")
def issuer(kind: str, folder: Path, postgres: str) -> Iterator[Muster]:
    files = str(key_file(folder, "clients"))
    with (
        pytest.MonkeyPatch.context() as environment,
        fresh_database(kind, folder, postgres) as url,
        Muster(url, folder, JWT_PRIVATE_KEY_FILES=files) as served,
    ):
        environment.setenv("AUTHLIB_INSECURE_TRANSPORT", "true")  # it refuses http:// otherwise
        yield served


@pytest.fixture
def ada(issuer: Muster) -> Account:
    return issuer.new_account()


def discovered(issuer: str) -> dict[str, Any]:
    """The metadata document (RFC 8414 section 3), found by the issuer alone and validated by Authlib."""
    answer = httpx.get(f"{issuer}/.well-known/oauth-authorization-server", verify=NO_TLS)
    metadata = AuthorizationServerMetadata(answer.raise_for_status().json())
    assert metadata["issuer"] == issuer
    for name in ("token_endpoint_auth_methods_supported", "scopes_supported", "grant_types_supported"):
        getattr(metadata, f"validate_{name}")()
    return dict(metadata)


def test_a_client_library_signs_in_refreshes_is_introspected_and_signs_out(issuer: Muster, ada: Account) -> None:
    name = f"http://localhost:{issuer.port}"
    metadata = discovered(name)
    with OAuth2Session(
        client_id="authlib",
        token_endpoint_auth_method="none",
        token_endpoint=metadata["token_endpoint"],
        scope="me jobs",
    ) as client:
        token = client.fetch_token(username=ada.email, password=ada.password, grant_type="password")
        assert (token["token_type"], token["scope"]) == ("Bearer", "me jobs")
        assert client.get(f"{name}/api/users/me").json()["email"] == ada.email

        keys = KeySet.import_key_set(httpx.get(metadata["jwks_uri"], verify=NO_TLS).json())
        verified = jwt.decode(token["access_token"], keys, algorithms=["RS256"])
        jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": name}, aud={"essential": True, "value": AUDIENCE}
        ).validate(verified.claims)
        assert (verified.header["typ"], verified.claims["client_id"]) == ("at+jwt", "authlib")

        renewed = client.refresh_token(metadata["token_endpoint"])
        assert renewed["refresh_token"] != token["refresh_token"]
        assert client.get(f"{name}/api/users/me").ok

        assert introspected(issuer, metadata, renewed["access_token"])["sub"] == verified.claims["sub"]
        revoke: Any = client.revoke_token  # which its stubs leave without types
        assert revoke(metadata["revocation_endpoint"], renewed["refresh_token"]).status_code == 200
        assert introspected(issuer, metadata, renewed["access_token"]) == {"active": False}
        with pytest.raises(OAuthError, match="invalid_grant"):
            client.refresh_token(metadata["token_endpoint"], renewed["refresh_token"])


def test_a_client_library_signs_in_by_code(issuer: Muster, ada: Account) -> None:
    app, browser = App(issuer), signed_in(ada)
    metadata = discovered(f"http://localhost:{issuer.port}")
    with OAuth2Session(
        client_id=app.id,
        token_endpoint_auth_method="none",
        token_endpoint=metadata["token_endpoint"],
        redirect_uri=app.redirect_uri,
        scope="me",
        code_challenge_method="S256",
    ) as client:
        address, state = client.create_authorization_url(metadata["authorization_endpoint"], code_verifier=app.verifier)
        answer = browser.call("POST", f"/authorize?{urlsplit(address).query}", data={"decision": "continue"})
        token = client.fetch_token(
            authorization_response=answer.headers["location"], state=state, code_verifier=app.verifier
        )
        assert (token["token_type"], token["scope"]) == ("Bearer", "me")
        assert client.refresh_token(metadata["token_endpoint"])["refresh_token"] != token["refresh_token"]
        assert client.get(f"{issuer.url}/api/users/me").json()["email"] == ada.email
        revoke: Any = client.revoke_token  # which its stubs leave without types
        assert revoke(metadata["revocation_endpoint"], client.token["refresh_token"]).status_code == 200
        assert client.get(f"{issuer.url}/api/users/me").status_code == 401


@pytest.mark.parametrize("library", ["openid-client", "appauth"])
def test_a_library_in_another_language_signs_in_by_code(issuer: Muster, ada: Account, library: str) -> None:
    app, name = App(issuer, redirect_uri="http://127.0.0.1/signed-in"), f"http://localhost:{issuer.port}"
    cookie = signed_in(ada).cookie
    (line,) = run_script("code_flow.mjs", library, name, app.id, "http://127.0.0.1:4000/signed-in", cookie).splitlines()
    assert json.loads(line) == {"scope": "me", "rotated": True, "before": 200, "after": 401}


# ---- The code in docs/clients.md ----


@pytest.fixture
def app(issuer: Muster) -> App:
    return App(issuer, redirect_uri="http://127.0.0.1:4000/signed-in")


def of(app: App, source: str) -> str:
    """The code with the addresses and the name of this instance and this app instead of the document's."""
    source = source.replace("https://muster.example.com", f"http://localhost:{app.muster.port}")
    return re.sub("ledger-(app|web)", app.id, source).replace("com.example.app:/signed-in", app.redirect_uri)


@pytest.mark.skipif(not (which("curl") and which("openssl")), reason="curl or openssl is not installed")
def test_the_documented_shell_signs_in(app: App, ada: Account) -> None:
    (script,) = (each for each in shown("sh") if "verifier" in each)
    ask, curl, exchange = of(app, script).partition("curl ")
    with subprocess.Popen(["sh", "-eu"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin
        assert shell.stdout
        print(ask, file=shell.stdin, flush=True)
        query = urlsplit(shell.stdout.readline().strip()).query
        answer = signed_in(ada).call("POST", f"/authorize?{query}", data={"decision": "continue"})
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
        printed, _ = shell.communicate(f"code={code}\n{curl}-s {exchange}", timeout=60)
    assert app.muster.me(Tokens(json.loads(printed))).json()["email"] == ada.email


def test_the_documented_typescript_signs_in(app: App, ada: Account, tmp_path: Path) -> None:
    source = tmp_path / "sign_in.ts"
    source.write_text(of(app, shown("ts")[0]))
    (line,) = run_script("web_flow.mjs", str(source), app.redirect_uri, signed_in(ada).cookie).splitlines()
    result = json.loads(line)
    assert app.muster.me(Tokens(result["pair"])).json()["email"] == ada.email
    assert result["left"] == {}
    assert result["refused"] == ["not ours", "not ours", "access_denied"]


def introspected(issuer: Muster, metadata: dict[str, Any], token: str) -> dict[str, Any]:
    """The token as a service introspects it, with an access token of its own that has the scope."""
    service = issuer.admin().sign_in(scope="tokens:introspect")
    own = {"access_token": service.access, "token_type": "Bearer"}
    with OAuth2Session(token=own) as client:
        answer = client.introspect_token(metadata["introspection_endpoint"], token, auth=client.token_auth)
    assert answer.ok
    state: dict[str, Any] = answer.json()
    return state


def test_a_service_in_another_language_verifies_by_the_published_keys(issuer: Muster, ada: Account) -> None:
    tokens, name = ada.sign_in(scope="me"), f"http://localhost:{issuer.port}"
    altered = tokens.access[:-6] + ("AAAAAA" if tokens.access[-6:] != "AAAAAA" else "BBBBBB")
    with Muster(issuer.database_url, issuer.folder, PUBLIC_URL=name) as by_secret:
        own = Tokens(by_secret.refresh(tokens.refresh).json())
    lines = run_script("verify.mjs", name, AUDIENCE, tokens.access, altered, own.access).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"sub": claims_of(tokens.access)["sub"], "scope": "me"},
        {"error": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"},
        {"error": "ERR_JOSE_ALG_NOT_ALLOWED"},
    ]
    (wrong,) = run_script("verify.mjs", name, "other", tokens.access).splitlines()
    assert json.loads(wrong) == {"error": "ERR_JWT_CLAIM_VALIDATION_FAILED"}
