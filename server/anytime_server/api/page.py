"""The browser page at `/`: static files from a folder, with headers that let it do little else.

Without the folder there is no page, and everything else works. There is one route for each file
that is there at start, so that no path of a client is ever looked up on the disk, and a wrong
method elsewhere stays a 405.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

_INDEX: Final = "index.html"

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


def routes(folder: Path) -> list[Route]:
    """A route for each file, and one for `/`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [_route(f"/{path.relative_to(folder).as_posix()}", path) for path in files]
    return [_route("/", folder / _INDEX), *found]


def find(folder: Path | None) -> Path | None:
    """The page's folder: the one given, else the package's or a source checkout's; None without."""
    here = Path(__file__)
    candidates = (here.parents[1] / "web", here.parents[3] / "client" / "web")
    for candidate in candidates if folder is None else (folder,):
        if (candidate / _INDEX).is_file():
            return candidate
    return None


def _route(url: str, path: Path) -> Route:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    async def serve(_: Request) -> Response:
        return FileResponse(path, headers=_HEADERS, media_type=media_type)

    return Route(url, serve, include_in_schema=False)
