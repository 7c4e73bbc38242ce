"""An identity provider that rotates its keys, is slow, broken or away; and strangers who try to have it asked often."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import httpx
import pytest

from app.core.errors import InvalidToken, ProviderUnavailable
from app.core.settings import Settings
from app.models.base import utcnow
from app.oauth2.jwts import parse_jwks
from app.oidc.provider import COOLDOWN, MAX_AGE, TIMEOUT, Provider
from tests.support.assertions import assert_problem
from tests.support.keycloak import Keycloak, SigningKey, use
from tests.support.servers import STARTUP, Muster, Tokens, wait_for
from tests.support.sockets import Socket

pytestmark = pytest.mark.one_database

SLOW = 10  # requests that wait for the provider: more than there are slots on SQLite


def use_after_cooldown(muster: Muster, token: str) -> httpx.Response:
    """The first response for which the provider was asked: until then it is a 503."""

    def response() -> httpx.Response | None:
        answer = use(muster, token)
        return None if answer.status_code == 503 else answer

    return wait_for(response, what="the end of the cooldown")


def assert_unavailable(answer: httpx.Response) -> None:
    assert_problem(answer, 503, "provider-unavailable")
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.slow
def test_new_keys_are_fetched_and_withdrawn_keys_expire(serve: Callable[..., Muster]) -> None:
    with Keycloak() as keycloak:
        muster = serve(OIDC_ISSUER=keycloak.issuer)
        claims, old = keycloak.claims(), keycloak.keys[0]
        assert use(muster, keycloak.token(**claims)).status_code == 200
        keycloak.keys.insert(0, SigningKey("RS256"))
        assert use_after_cooldown(muster, keycloak.token(**claims)).status_code == 200
        assert use(muster, keycloak.token(key=old, **claims)).status_code == 200
        keycloak.keys.remove(old)
        keycloak.keys.insert(0, SigningKey("ES256"))
        assert use_after_cooldown(muster, keycloak.token(**claims)).status_code == 200
        assert use(muster, keycloak.token(key=old, **claims)).status_code == 401
        assert keycloak.asked["jwks"] <= 4


@pytest.mark.slow
def test_known_keys_verify_while_the_provider_is_unavailable_and_nobody_else_is_affected(
    serve: Callable[..., Muster],
) -> None:
    keycloak = Keycloak()
    muster = serve(OIDC_ISSUER=keycloak.issuer)  # starts without it
    token, account = keycloak.token(), muster.new_account()
    assert_unavailable(use(muster, token))
    assert muster.me(account.sign_in()).status_code == 200
    with keycloak:
        assert use_after_cooldown(muster, token).status_code == 200
    assert use(muster, token).status_code == 200
    assert use(muster, keycloak.token()).status_code == 200  # somebody new, of whom the token says enough
    assert_unavailable(use(muster, keycloak.token(email=None)))
    unknown = keycloak.token(key=SigningKey("RS256"))
    assert_unavailable(use(muster, unknown))
    with Socket(muster, Tokens(access_token=unknown)) as socket:
        assert socket.closed() == 1013  # come again, and not: sign in again
    assert muster.me(account.sign_in()).status_code == 200
    keycloak.keys.insert(0, SigningKey("RS256"))
    with keycloak:
        assert use_after_cooldown(muster, keycloak.token()).status_code == 200


def test_unknown_key_ids_cause_no_load_on_the_provider(external: Muster, keycloak: Keycloak) -> None:
    assert use(external, keycloak.token()).status_code == 200
    asked, started, stranger = keycloak.asked["jwks"], monotonic(), SigningKey("RS256")
    tokens = [keycloak.token(key=stranger, header={"kid": f"kid-{number}"}) for number in range(60)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda token: use(external, token), tokens))
    assert {answer.status_code for answer in answers} <= {401, 503}
    fetches = keycloak.asked["jwks"] - asked
    assert fetches <= (monotonic() - started) / COOLDOWN + 1
    unavailable = [answer for answer in answers if answer.status_code == 503]
    assert (
        len(unavailable) >= len(tokens) - 10 * fetches
    )  # only those that waited for a fetch know that it is not a new key
    for answer in unavailable:
        assert_unavailable(answer)
    assert use(external, keycloak.token()).status_code == 200


@pytest.mark.slow
def test_a_slow_provider_delays_no_other_request(serve: Callable[..., Muster]) -> None:
    with Keycloak() as keycloak:
        muster = serve(OIDC_ISSUER=keycloak.issuer)
        known, unknown = keycloak.token(), keycloak.token(key=SigningKey("RS256"))
        assert use(muster, known).status_code == 200
        tokens, asked = muster.new_account().tokens(), keycloak.asked["discovery"]

        def has_asked() -> bool:
            return keycloak.asked["discovery"] > asked

        def refused_and_has_asked() -> bool:  # refused at once, as long as COOLDOWN lasts
            assert_unavailable(use(muster, unknown))
            return has_asked()

        with ThreadPoolExecutor(SLOW) as pool, keycloak.silent():
            first = pool.submit(wait_for, refused_and_has_asked, what="the end of the cooldown")
            wait_for(has_asked, what="a request to the provider")
            waiting = [pool.submit(use, muster, unknown) for _ in range(SLOW - 1)]
            assert use(muster, known).status_code == 200
            headers = tokens.bearer
            assert muster.client.patch("/api/users/me", json={"name": "Ada"}, headers=headers).status_code == 200
            assert not first.done()
            assert not any(each.done() for each in waiting)
            for each in waiting:
                assert_unavailable(each.result())
            assert first.result()
        assert keycloak.asked["discovery"] == asked + 1


# ---- In this process: what it answers is not what it should be ----


async def _verify(keycloak: Keycloak, token: str) -> str:
    provider = Provider(keycloak.issuer, Settings())
    try:
        return (await provider.verify(token, utcnow())).subject
    finally:
        await provider.close()


def let_keys_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make keys expire as soon as they are fetched, and let nothing delay the next fetch."""
    for name in ("MAX_AGE", "COOLDOWN"):
        monkeypatch.setattr(f"app.oidc.provider.{name}", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "refusal"), [("another", InvalidToken), ("none", ProviderUnavailable), ("unfit", ProviderUnavailable)]
)
def test_a_withdrawn_key_expires_within_the_hour(
    monkeypatch: pytest.MonkeyPatch, left: str, refusal: type[Exception]
) -> None:
    """The first uses after that time wait for what the provider says, also if it has no key anymore."""
    assert MAX_AGE <= 3600
    unfit = {**SigningKey("RS256").public, "use": "enc"}
    answers = {"another": [SigningKey("ES256").public], "none": [], "unfit": [unfit]}

    async def use_later(keycloak: Keycloak, token: str) -> None:
        provider, claims = Provider(keycloak.issuer, Settings()), keycloak.claims()
        await provider.verify(token, utcnow())
        keycloak.answers["jwks"] = {"keys": answers[left]}
        let_keys_expire(monkeypatch)
        tokens = [token, *(keycloak.token(**claims) for _ in range(5))]
        results = await asyncio.gather(*(provider.verify(each, utcnow()) for each in tokens), return_exceptions=True)
        assert [type(each) for each in results] == [refusal] * len(tokens)
        await provider.close()

    with Keycloak() as keycloak:
        asyncio.run(use_later(keycloak, keycloak.token()))
        assert keycloak.asked["jwks"] <= 3


@pytest.mark.slow
def test_known_keys_stay_valid_during_an_outage_and_one_fetch_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use_later(keycloak: Keycloak, token: str) -> None:
        provider = Provider(keycloak.issuer, Settings())
        await provider.verify(token, utcnow())
        let_keys_expire(monkeypatch)
        keycloak.go.clear()
        looking = asyncio.create_task(provider.verify(token, utcnow()))
        async with asyncio.timeout(STARTUP):
            while keycloak.asked["discovery"] < 2:
                await asyncio.sleep(0.01)
        assert not looking.done()
        assert await looking
        assert await asyncio.wait_for(provider.verify(token, utcnow()), TIMEOUT / 2)  # a fetch is in progress
        await provider.close()

    with Keycloak() as keycloak:
        asyncio.run(use_later(keycloak, keycloak.token()))


def test_a_cached_token_still_ends_a_minute_after_its_expiry() -> None:
    async def use_later(keycloak: Keycloak) -> None:
        provider, claims = Provider(keycloak.issuer, Settings()), keycloak.claims()
        token, end = keycloak.token(**claims), datetime.fromtimestamp(claims["exp"] + 60, UTC)
        for now in (utcnow(), end - timedelta(microseconds=1)):
            assert (await provider.verify(token, now)).subject == claims["sub"]
        with pytest.raises(InvalidToken):
            await provider.verify(token, end)
        await provider.close()

    with Keycloak() as keycloak:
        asyncio.run(use_later(keycloak))


BROKEN: dict[str, dict[str, Any]] = {
    "another issuer": {"discovery": {"issuer": "https://attacker.example", "jwks_uri": "JWKS"}},
    "no issuer": {"discovery": {"jwks_uri": "JWKS"}},
    "no address of the keys": {"discovery": {"issuer": "ISSUER"}},
    "an address without HTTP": {"discovery": {"issuer": "ISSUER", "jwks_uri": "ftp://127.0.0.1/certs"}},
    "an invalid address": {"discovery": {"issuer": "ISSUER", "jwks_uri": "http://127.0.0.1:x/"}},
    "an address of another kind": {"discovery": {"issuer": "ISSUER", "jwks_uri": 7}},
    "a redirect": {"discovery": 302},
    "an error": {"jwks": 500},
    "no JSON": {"jwks": b"<html>"},
    "no object": {"jwks": []},
    "no list": {"jwks": {"keys": 7}},
    "no keys": {"jwks": {"keys": []}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_provider_with_malformed_responses_is_unavailable(name: str) -> None:
    with Keycloak(SigningKey("ES256")) as keycloak:
        token = keycloak.token()
        assert asyncio.run(_verify(keycloak, token))
        named = {"ISSUER": keycloak.issuer, "JWKS": f"{keycloak.issuer}/certs"}
        for what, answer in BROKEN[name].items():
            is_document = what == "discovery" and isinstance(answer, dict)
            keycloak.answers[what] = (
                {key: named.get(value, value) for key, value in answer.items()} if is_document else answer
            )
        with pytest.raises(ProviderUnavailable):
            asyncio.run(_verify(keycloak, token))


def test_a_single_key_needs_no_kid() -> None:
    with Keycloak(SigningKey("ES256")) as keycloak:
        token = keycloak.token(header={"kid": None})
        assert asyncio.run(_verify(keycloak, token))
        stranger = keycloak.token(key=SigningKey("ES256"), header={"kid": None})
        with pytest.raises(InvalidToken):
            asyncio.run(_verify(keycloak, stranger))


@pytest.mark.slow
def test_keys_with_the_same_kid_are_each_tried() -> None:
    keys = [SigningKey("RS256") for _ in range(3)]
    for key in keys:
        key.id = "shared"
    with Keycloak(*keys[:2]) as keycloak:
        for key in keys[:2]:
            assert asyncio.run(_verify(keycloak, keycloak.token(key=key)))
        with pytest.raises(InvalidToken):
            asyncio.run(_verify(keycloak, keycloak.token(key=keys[2])))


def test_only_keys_for_verifying_are_accepted() -> None:
    rsa, ec = SigningKey("RS256").public, SigningKey("ES256").public
    assert [key.algorithm for key in parse_jwks({"keys": [rsa, ec]})] == ["RS256", "ES256"]
    unfit: list[Any] = [
        SigningKey("RS256", bits=1024).public,
        {**rsa, "use": "enc"},
        {**rsa, "alg": "RS512"},
        {**rsa, "alg": "ES256"},
        {**rsa, "key_ops": ["encrypt"]},
        {**rsa, "key_ops": "verify"},
        {**rsa, "kid": 7},
        {**rsa, "n": "\ud800"},
        {**rsa, "e": ""},
        {**ec, "crv": "P-384"},
        {**ec, "crv": "secp256k1"},
        {**ec, "x": ec["y"]},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        *[None, 7, "key", [], {}],
    ]
    for key in unfit:
        assert parse_jwks({"keys": [key]}) == [], key
