"""`anytime demo`: starts a server unless one runs, streams a sample image and saves its maps.

The server is started as the program `anytime-server`: the client imports none of its packages.
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

from anytime_client import render
from anytime_client.address import Address
from anytime_client.cli import options, terminal
from anytime_client.cli.stream import save_sheet, stream_with_table
from anytime_client.errors import AnytimeError
from anytime_client.images import open_image
from anytime_client.output import OutputFormat, encode_update, write
from anytime_protocol.budget import Budget

SAMPLE: Final = "/samples/street-1.jpg"
_POLL_S: Final = 0.25


class DemoError(AnytimeError):
    """The server of the demonstration cannot be started."""


class ServerState(Enum):
    """What answers at an address."""

    READY = auto()
    LOADING = auto()
    """A server whose models are not loaded yet."""
    ABSENT = auto()
    OTHER_PROGRAM = auto()


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
    """Start a server unless one runs, stream a street through all exits.

    The maps are saved. The server goes on running; its page's address and how
    to stop it are printed at the end.
    """
    console = options.stderr_console()
    server = options.server_options(context)
    address = Address.parse(server.url, server.token)
    process = None
    state = _probe(address)
    if state is ServerState.OTHER_PROGRAM:
        raise DemoError(
            f"{address.base}: another program answers there; name a free port: "
            "ANYTIME_URL=http://127.0.0.1:8001"
        )
    if state is ServerState.ABSENT:
        process = _start(address, weights, out)
    try:
        if state is not ServerState.READY:
            _wait(address, process, out / "server.log", patience_s, console)
    except BaseException:  # also on Ctrl-C: leave no server behind whose process nobody knows
        if process is not None:
            process.terminate()
        raise
    data = options.read_image(image) if image is not None else _fetch_sample(address)
    upright = open_image(data, image or SAMPLE)
    with server.connect() as client:
        updates = stream_with_table(client, data, model, Budget(), image or SAMPLE)
    for update in updates:
        write(out / f"exit{update.exit}.png", encode_update(update, upright, OutputFormat.OVERLAY))
    save_sheet(out / "exits.png", upright, updates)
    screen = Console()
    if screen.is_terminal:
        width = min(screen.width, terminal.WIDTH)
        for update in dict.fromkeys([*updates[:1], *updates[-1:]]):
            screen.print(terminal.image_to_text(render.overlay(upright, update), width))
            screen.print(render.caption(update), highlight=False)
    if updates:
        names = ", ".join(f"exit{update.exit}.png" for update in updates)
        options.print_result(f"maps:   {names} and exits.png in {out}")
    options.print_result(f"page:   {address.base}/")
    if process is None:
        options.print_result("server: had been running before, and runs on")
    else:
        stop = f"taskkill /F /PID {process.pid}" if os.name == "nt" else f"kill {process.pid}"
        options.print_result(f"server: runs on as process {process.pid}; stop it with: {stop}")


def _probe(address: Address) -> ServerState:
    try:
        answer = httpx.get(f"{address.base}/readyz", headers=address.headers, timeout=2.0)
    except httpx.HTTPError:
        return ServerState.ABSENT
    match answer.status_code:
        case httpx.codes.OK:
            return ServerState.READY
        case httpx.codes.SERVICE_UNAVAILABLE:
            return ServerState.LOADING
        case _:
            return ServerState.OTHER_PROGRAM


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
        while _probe(address) is not ServerState.READY:
            if process is not None and process.poll() is not None:
                raise DemoError(f"the server ended with {process.returncode}: {_last_error(log)}")
            if time.monotonic() > until:
                raise DemoError(
                    f"the server was not ready in {patience_s:g} s; {log} may say why, and "
                    "--patience-s waits longer"
                )
            time.sleep(_POLL_S)


def _last_error(log: Path) -> str:
    """The last line of a server's log that speaks of an error, or else the last."""
    lines = log.read_text("utf-8", "replace").split("\n")
    written = [line for line in lines if line.strip()] or ["it said nothing"]
    errors = [line for line in written if "error" in line.lower()]
    return f"{(errors or written)[-1].strip()} ({log} has the rest)"


def _fetch_sample(address: Address) -> bytes:
    answer = httpx.get(address.base + SAMPLE, headers=address.headers, timeout=10.0)
    if not answer.is_success:
        raise DemoError(f"{address.base + SAMPLE}: status {answer.status_code}; give an --image")
    return answer.content
