"""The three ways to serve: both applications as one, and each alone; here with routes that fail."""

from typing import Any

from fastapi import APIRouter

from app import main
from app.http.routing import Router

broken_api = Router(prefix="/api/broken")
broken_page = APIRouter(include_in_schema=False)


@broken_api.get("")
def break_down() -> None:
    raise RuntimeError("a secret that no client may see")


@broken_page.get("/broken")
async def break_page() -> None:
    raise RuntimeError("a secret that no client may see")


def __getattr__(name: str) -> Any:
    if name not in {"app", "api", "web"}:
        raise AttributeError(name)
    api = main.create_api()
    api.include_router(broken_api)
    if name == "api":
        return api
    web = main.create_pages(api if name == "app" else None)
    web.include_router(broken_page)
    return main.CombinedApplication(api, web) if name == "app" else web
