"""`anytime demo`: from nothing to a street that gets sharper, and a server that goes on running.

Decides how a server is started beside the client and waited for. Starts the program
`anytime-server`, never its code: the client does not know the server's packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from rich.console import Console

from anytime_client import terminal
from anytime_client.address import Address
from anytime_client.commands import options
from anytime_client.commands.stream import follow_live, save_sheet
from anytime_client.errors import AnytimeError
from anytime_client.images import open_picture
from anytime_client.saving import Form, render, write
from anytime_protocol.budget import Budget

SAMPLE: Final = "/samples/street-1.jpg"
_POLL_S: Final = 0.25


class DemoError(AnytimeError):
    """The demonstration's server cannot be started."""


class Found(Enum):
    """What answers at an address."""

    READY = auto()
    LOADING = auto()
    """A server whose models are not loaded yet."""
    NOBODY = auto()
    STRANGER = auto()
    """Another program."""


def demo(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the maps and the server's log.")
    ] = Path("artifacts/demo"),
    weights: Annotated[
        Path, typer.Option("--weights", help="Folder of the server's weights.")
    ] = Path("weights"),
    image: Annotated[
        str | None, typer.Option("--image", help="Another image than the page's sample.")
    ] = None,
    model: options.Model = None,
    patience_s: Annotated[
        float, typer.Option("--patience-s", min=1, help="Longest wait for the server, in s.")
    ] = 300.0,
) -> None:
    """Start a server unless one runs, stream a street image through all exits, save the maps.

    The server goes on running; its page's address and how to stop it are printed at the end.
    """
    console = options.to_people()
    server = options.connection(context)
    address = Address.parse(server.url, server.token)
    process = None
    found = _look(address)
    if found is Found.STRANGER:
        raise DemoError(
            f"{address.base}: another program answers there; name a free port: "
            "ANYTIME_URL=http://127.0.0.1:8001"
        )
    if found is Found.NOBODY:
        process = _start(address, weights, out)
    try:
        if found is not Found.READY:
            _wait(address, process, out / "server.log", patience_s, console)
    except BaseException:  # Ctrl-C, too, leaves no server behind that nobody was told of
        if process is not None:
            process.terminate()
        raise
    data = options.read_image(image)[0] if image is not None else _sample(address)
    picture = open_picture(data)
    with server.open() as client:
        updates, _ = follow_live(client, data, model, Budget(), image or SAMPLE)
    for update in updates:
        write(str(out / f"exit{update.exit}.png"), render(update, picture, Form.OVERLAY))
    save_sheet(out / "exits.png", picture, updates)
    if updates and console.is_terminal:
        console.print(terminal.picture(open_picture(render(updates[-1], picture, Form.OVERLAY))))
    if updates:
        names = f"exit{updates[0].exit}.png to exit{updates[-1].exit}.png"
        options.remark(f"maps:   {names} and exits.png in {out}")
    options.remark(f"page:   {address.base}/")
    if process is None:
        options.remark("server: had been running before, and runs on")
    else:
        stop = f"taskkill /F /PID {process.pid}" if os.name == "nt" else f"kill {process.pid}"
        options.remark(f"server: runs on as process {process.pid}; stop it with: {stop}")


def _look(address: Address) -> Found:
    try:
        answer = httpx.get(address.at("/readyz"), headers=address.headers, timeout=2.0)
    except httpx.HTTPError:
        return Found.NOBODY
    match answer.status_code:
        case httpx.codes.OK:
            return Found.READY
        case httpx.codes.SERVICE_UNAVAILABLE:
            return Found.LOADING
        case _:
            return Found.STRANGER


def _start(address: Address, weights: Path, out: Path) -> subprocess.Popen[bytes]:
    url = httpx.URL(address.base)
    if url.host not in {"127.0.0.1", "localhost", "::1"}:
        raise DemoError(f"{address.base}: no server is ready there; only a local one is started")
    beside = shutil.which("anytime-server", path=Path(sys.executable).parent)
    found = beside or shutil.which("anytime-server")
    if found is None:
        raise DemoError("anytime-server is not installed here: pip install 'anytime-dense[server]'")
    out.mkdir(parents=True, exist_ok=True)
    command = [found, "serve", "--host", url.host, "--port", str(url.port or 80)]
    with (out / "server.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own program, found beside this one
            [*command, "--weights", str(weights)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(
    address: Address,
    process: subprocess.Popen[bytes] | None,
    log: Path,
    patience_s: float,
    console: Console,
) -> None:
    until = time.monotonic() + patience_s
    with console.status("The server loads its models and measures them ..."):
        while _look(address) is not Found.READY:
            if process is not None and process.poll() is not None:
                raise DemoError(f"the server ended with {process.returncode}: {_last_words(log)}")
            if time.monotonic() > until:
                raise DemoError(
                    f"the server was not ready in {patience_s:g} s; {log} may say why, and "
                    "--patience-s waits longer"
                )
            time.sleep(_POLL_S)


def _last_words(log: Path) -> str:
    """The last line of a server's log that speaks of an error, or else the last."""
    lines = log.read_text("utf-8", "replace").split("\n")
    said = [line for line in lines if line.strip()] or ["it said nothing"]
    errors = [line for line in said if "error" in line.lower()]
    return f"{(errors or said)[-1].strip()} ({log} has the rest)"


def _sample(address: Address) -> bytes:
    answer = httpx.get(address.at(SAMPLE), headers=address.headers, timeout=10.0)
    if not answer.is_success:
        raise DemoError(f"{address.at(SAMPLE)}: status {answer.status_code}; give an --image")
    return answer.content
