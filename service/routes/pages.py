"""The playground, the status page and the API reference: static pages that load nothing from elsewhere."""

import os
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response

STATIC_DIR = Path(__file__).resolve().parent.parent / "static"
SWAGGER_UI = ("fastapi_swagger", "resources")  # the package and its folder with the files of Swagger UI
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


class PageParts(StaticFiles):
    """Scripts, styles and icons, and nothing else that lies in their folders.

    Browsers ask each time whether they changed, so that parts of two versions never meet.
    """

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if Path(path).suffix in {".js", ".css", ".svg"} else ("", None)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
        return response


@router.head("/")
@router.get("/")
async def playground() -> FileResponse:
    return _page("index.html", CONTENT_SECURITY_POLICY)


@router.head("/status")
@router.get("/status")
async def status() -> FileResponse:
    """Serve the page that shows ``/models`` and ``/metrics``; the page asks for a key where the server has keys."""
    return _page("status.html", CONTENT_SECURITY_POLICY)


@router.head("/docs")
@router.get("/docs")
async def reference() -> FileResponse:
    """Serve Swagger UI. An answer that is an image is shown from a ``blob:`` address, made in the page itself."""
    return _page("reference.html", CONTENT_SECURITY_POLICY.replace("data:", "data: blob:"))


def _page(name: str, policy: str) -> FileResponse:
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(STATIC_DIR / name, headers=headers)
