"""Reads frames, has each computed within a deadline, and publishes the maps to Foxglove.

    PYTHONPATH=. python -m integrations.foxglove drive.mcap --out labels.mcap --deadline-ms 200
    PYTHONPATH=. python -m integrations.foxglove 0 --live        # then open ws://127.0.0.1:8765

Exit codes: 0 done; 1 a frame failed; 2 unusable arguments or source, or no server; 130 Ctrl-C.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Annotated, Final

import foxglove
import typer
from foxglove.mcap import MCAPWriteOptions

from anytime_client import AnytimeError, Client, ImageError, OutputOptions, RequestError, Task
from integrations.foxglove.publisher import Publisher
from integrations.foxglove.sources import read_source
from integrations.models import choose_model

_WANT: Final = OutputOptions(confidence=True)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(help="MCAP or video file, folder, or camera (its number or device file)."),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="MCAP file to write.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Serve Foxglove, at the speed of the source.")
    ] = False,
    host: Annotated[str, typer.Option(help="Interface that --live listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --live.")] = 8765,
    topic: Annotated[str | None, typer.Option(help="Of the images in an MCAP file.")] = None,
    every: Annotated[bool, typer.Option("--every", help="Drop no frame in --live.")] = False,
    prefix: Annotated[str, typer.Option(help="Of the topics that are published.")] = "/anytime",
    model: Annotated[str | None, typer.Option(help="The server's first unless given.")] = None,
    deadline_ms: Annotated[
        float, typer.Option("--deadline-ms", "-d", min=0, help="For each frame, in ms.")
    ] = 200,
    url: Annotated[
        str, typer.Option("--server", "-s", envvar="ANYTIME_URL", help="The anytime server.")
    ] = "http://127.0.0.1:8000",
    token: Annotated[
        str | None, typer.Option(envvar="ANYTIME_TOKEN", help="Bearer token of the server.")
    ] = None,
) -> None:
    """Publish label and confidence images of a source, each within a deadline.

    A frame that fails is reported, also in the diagnostics, and passed over.
    """
    if out is None and not live:
        raise ValueError("found neither --out nor --live, expected one of them or both")
    if out is not None and out.exists() and out.samefile(source):
        raise ValueError(f"--out {out} is the source, expected another file")
    served = failed = 0
    with ExitStack() as stack:
        client = stack.enter_context(Client(url, token))
        chosen = choose_model(client.models, Task.SEGMENTATION, model)
        frames = read_source(source, topic, live=live, every=every)
        first = next(frames, None)  # before a file is written
        if first is None:
            raise ImageError(f"{source}: found no images")
        context = foxglove.Context()
        if out is not None:
            options = MCAPWriteOptions(profile="ros2")
            stack.enter_context(
                foxglove.open_mcap(
                    out, allow_overwrite=True, context=context, writer_options=options
                )
            )
        if live:
            server = foxglove.start_server(
                name="anytime-dense", host=host, port=port, context=context
            )
            stack.callback(server.stop)
            typer.echo(f"open ws://{host}:{server.port} in Foxglove", err=True)
        publisher = Publisher(context, prefix, chosen)
        for frame, dropped in chain([first], frames):
            late = f" ({dropped} dropped before it)" if dropped else ""
            try:
                result = client.predict(
                    frame.image, model=chosen.name, deadline_ms=deadline_ms, want=_WANT
                )
            except RequestError as error:
                publisher.publish_error(frame, error)
                typer.echo(f"{frame.name}{late}: {error}", err=True)
                failed += 1
                continue
            publisher.publish(frame, result)
            typer.echo(f"{frame.name}{late}: {result.label}, {result.reason}", err=True)
            served += 1
    typer.echo(f"{served} frames published, {failed} failed", err=True)
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """The program."""
    try:
        app()
    except (AnytimeError, ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
