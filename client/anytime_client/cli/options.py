"""What several subcommands share: options, the server's address, input and printed output."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from anytime_client.client import Client
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


def read_image(path: str) -> tuple[bytes, str]:
    """An image file's bytes and a name for it; `-` reads standard input.

    Raises:
        ImageError: it is no image that can be sent.
    """
    if path == STANDARD:
        return encode_image(sys.stdin.buffer.read())[0], "stdin"
    return encode_image(path)[0], path


def stderr_console() -> Console:
    """The console for progress and notes: standard error, so that pipes carry data alone."""
    return Console(stderr=True)


def print_note(text: str) -> None:
    """Prints text for people on standard error."""
    stderr_console().print(text, highlight=False, markup=False, soft_wrap=True)


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
