"""Print the demo realm of Keycloak, docker/keycloak/muster-realm.json, with the scopes of app/core/scopes.py."""

import json
from typing import Any

from app.core.scopes import SCOPES
from app.core.settings import ROOT
from scripts.command_line import Parser

BASE = ROOT / "docker" / "keycloak" / "muster-realm.json"
_IN_TOKENS = {"include.in.token.scope": "true", "display.on.consent.screen": "false"}


def demo_realm() -> dict[str, Any]:
    """The realm as Keycloak imports it: an app may ask for each scope of ours."""
    realm: dict[str, Any] = json.loads(BASE.read_text(encoding="utf-8"))
    about = {"protocol": "openid-connect", "attributes": _IN_TOKENS}
    realm["clientScopes"] += [{"name": name, "description": text, **about} for name, text in SCOPES.items()]
    for client in realm["clients"]:
        client["optionalClientScopes"] = list(SCOPES)
    return realm


if __name__ == "__main__":
    Parser(prog="python -m scripts.realm", description=__doc__).parse_args()
    print(json.dumps(demo_realm(), indent=2))
