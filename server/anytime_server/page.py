"""The browser page at `/`: static files from a folder, with headers that let it do little else.

Decides where the page is and what it may do. Knows nothing of its content; without the folder there
is no page, and everything else works.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


class Page(StaticFiles):
    """Files of the page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See Starlette's `StaticFiles`."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def find(folder: Path | None) -> Path | None:
    """The page's folder: the one given, or `client/web` of a source checkout, if it has a page."""
    candidate = folder or Path(__file__).parents[2] / "client" / "web"
    return candidate if (candidate / "index.html").is_file() else None
