"""What several subcommands share: options, the server's address, input and printed output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from anytime_client.client import Client
from anytime_client.errors import ImageError, RequestError
from anytime_client.frames import list_folder
from anytime_client.images import encode_image
from anytime_client.output import STANDARD, OutputFormat
from anytime_client.transport import TransportKind
from anytime_protocol.budget import Budget


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options before the subcommand: which server, and how to reach it."""

    url: str
    token: str | None
    transport: TransportKind
    timeout_s: float

    def connect(self) -> Client:
        """A client of the server."""
        return Client(self.url, self.token, transport=self.transport, timeout_s=self.timeout_s)


def server_options(context: typer.Context) -> ServerOptions:
    """The options before the subcommand."""
    found: ServerOptions = context.obj
    return found


def connect(context: typer.Context) -> Client:
    """A client of the server that the options before the subcommand name."""
    return server_options(context).connect()


def read_image(path: str) -> bytes:
    """An image file's bytes; `-` reads standard input.

    Raises:
        ImageError: it is no image that can be sent.
    """
    return encode_image(sys.stdin.buffer.read() if path == STANDARD else path)[0]


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The images that a command is about.

    Attributes:
        paths: files, `-` for standard input.
        is_one: a single file was named; results then go to it, and not into a folder.
    """

    paths: tuple[str, ...]
    is_one: bool

    @classmethod
    def of(cls, arguments: Sequence[str]) -> ImageFiles:
        """Files as they are named, and the images that are in folders now.

        Raises:
            ImageError: a folder has no images.
        """
        paths: list[str] = []
        for argument in arguments:
            if argument == STANDARD or not Path(argument).is_dir():
                paths.append(argument)
                continue
            found = [str(Path(argument) / image.name) for image in list_folder(Path(argument))]
            if not found:
                raise ImageError(f"{argument}: found no images in this folder")
            paths += found
        return cls(tuple(paths), len(arguments) == 1 and paths == list(arguments))


class Failures:
    """The images that failed: each is told at once; the exit code is 1 in the end.

    Args:
        stop: end the program with the first, with 2 where the image is at fault.
    """

    def __init__(self, *, stop: bool) -> None:
        self._stop = stop
        self.count = 0

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Handles the errors of one image, which are told with its name."""
        try:
            yield
        except (ImageError, RequestError) as error:
            text = str(error)
            print_note(f"anytime: {text if text.startswith(f'{name}: ') else f'{name}: {text}'}")
            self.count += 1
            if self._stop:
                raise typer.Exit(2 if isinstance(error, ImageError) else 1) from error

    def exit(self) -> None:
        """Ends the program if there were any."""
        if self.count:
            raise typer.Exit(1)


def check_max_exit(client: Client, model: str | None, max_exit: int | None) -> None:
    """Checks that the model has an exit of this number.

    Raises:
        typer.BadParameter: it has not.
    """
    if max_exit is None or max_exit <= 1:  # what is less than 1 is the budget's to refuse
        return
    served = next((info for info in client.models if model in {None, info.name}), None)
    if served is not None and max_exit > len(served.exits):
        text = f"found {max_exit}, {served.name} has {len(served.exits)} exits"
        raise typer.BadParameter(text, param_hint="--max-exit")


def stderr_console() -> Console:
    """The console for progress and notes: standard error, so that pipes carry results alone."""
    return Console(stderr=True)


def print_note(text: str) -> None:
    """Prints a note for people, such as progress or an error, on standard error."""
    stderr_console().print(text, highlight=False, markup=False, soft_wrap=True)


def print_result(text: str) -> None:
    """Prints a result for people on standard output."""
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Prints a value as one line of JSON on standard output."""
    typer.echo(json.dumps(value))


def limits(
    deadline_ms: float | None,
    max_exit: int | None,
    compute_gmacs: float | None,
    min_confidence: float | None,
    confident_share: float | None,
    max_risk: float | None,
) -> Budget:
    """A budget from its options.

    Raises:
        BudgetError: a limit is out of its range.
    """
    return Budget(
        deadline_ms=deadline_ms,
        compute_gmacs=compute_gmacs,
        max_exit=max_exit,
        min_confidence=min_confidence,
        confident_share=confident_share,
        max_risk=max_risk,
    )


FileFormat: TypeAlias = Annotated[
    OutputFormat, typer.Option("--form", "-f", help="What the files of --out hold.")
]
ImagePath: TypeAlias = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Image file; - reads standard input.")
]
ImagePaths: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help="Image files, folders of images; - reads standard input."
    ),
]
Model: TypeAlias = Annotated[
    str | None, typer.Option("--model", "-m", help="Model's name; the server's first by default.")
]
DeadlineMs: TypeAlias = Annotated[
    float | None, typer.Option("--deadline-ms", "-d", help="From arrival to the answer, in ms.")
]
MaxExit: TypeAlias = Annotated[
    int | None, typer.Option("--max-exit", help="Deepest exit, 1 or more.")
]
ComputeGmacs: TypeAlias = Annotated[
    float | None, typer.Option("--compute-gmacs", help="Compute allowed, in 1e9 multiply-adds.")
]
MinConfidence: TypeAlias = Annotated[
    float | None, typer.Option("--min-confidence", help="Stop at this mean confidence, 0 to 1.")
]
ConfidentShare: TypeAlias = Annotated[
    float | None, typer.Option("--confident-share", help="Stop at this share of settled pixels.")
]
MaxRisk: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-risk", help="Share of settled pixels that may differ from the end, 0 to 1."
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="JSON on standard output, for programs.")
]
