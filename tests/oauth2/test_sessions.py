"""The main job: a phone registers, signs in, reads itself, loses an answer, refreshes, is signed out elsewhere."""

from tests.support.servers import Muster, Tokens


def test_a_phone_lives_through_a_lost_answer_until_it_is_signed_out(muster: Muster) -> None:
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
