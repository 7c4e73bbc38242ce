"""The main job: a phone registers, signs in, reads its account, loses a response, refreshes, and is signed out."""

import httpx

from tests.support.assertions import assert_problem
from tests.support.servers import Muster, Tokens, claims_of


def test_a_phone_survives_a_lost_response_and_is_signed_out_by_a_tablet(muster: Muster) -> None:
    ada = muster.new_account(name="Ada")
    phone = ada.sign_in(device="Ada's phone")
    assert muster.me(phone).json()["name"] == "Ada"

    lost = muster.refresh(phone.refresh)
    again = muster.refresh(phone.refresh)
    assert again.status_code == 200
    assert again.json()["refresh_token"] == lost.json()["refresh_token"]

    tablet = ada.sign_in(device="Ada's tablet")
    sessions = muster.client.get("/api/users/me/sessions", headers=tablet.bearer).json()
    assert [(session["device"], session["current"]) for session in sessions] == [
        ("Ada's tablet", True),
        ("Ada's phone", False),
    ]
    gone = muster.client.delete(f"/api/users/me/sessions/{sessions[1]['id']}", headers=tablet.bearer)
    assert gone.status_code == 204
    assert muster.me(Tokens(again.json())).status_code == 401
    assert muster.refresh(again.json()["refresh_token"]).json()["error"] == "invalid_grant"
    assert muster.me(tablet).status_code == 200


def test_a_device_is_renamed_by_its_owner_alone(muster: Muster) -> None:
    ada, other = muster.new_account(), muster.new_account().tokens()
    phone, tablet = ada.sign_in(device="phone"), ada.sign_in(device="tablet")

    def rename(tokens: Tokens, name: object) -> httpx.Response:
        path = f"/api/users/me/sessions/{claims_of(phone.access)['sid']}"
        return muster.client.patch(path, json={"device": name}, headers=tokens.bearer)

    renamed = rename(tablet, "  Ada's old phone www.example.com ")
    assert (renamed.status_code, renamed.json()["device"], renamed.json()["current"]) == (200, "Ada's old phone", False)
    assert muster.me(phone).status_code == 200
    assert muster.refresh(phone.refresh).status_code == 200
    for name in ("", "  ", "https://example.com/now", "x" * 101, "two\nlines", None):
        assert_problem(rename(tablet, name), 422, "invalid")
    assert_problem(rename(other, "mine"), 404, "session-not-found")
    muster.client.delete(f"/api/users/me/sessions/{claims_of(phone.access)['sid']}", headers=tablet.bearer)
    assert_problem(rename(tablet, "gone"), 404, "session-not-found")
