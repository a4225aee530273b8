"""What several subcommands share: options, the server to talk to, the image to send.

Decides names and help texts of shared options, so that a flag means the same everywhere. Does no
work of a command.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer
from rich.console import Console

from anytime_client.blocking import Client
from anytime_client.images import as_file
from anytime_client.questions import Transport
from anytime_client.saving import STANDARD
from anytime_protocol.budget import Budget


@dataclass(frozen=True, slots=True)
class Connection:
    """The server that all commands of one call talk to."""

    url: str
    token: str | None
    transport: Transport
    timeout_s: float

    def open(self) -> Client:
        """A client of it."""
        return Client(self.url, self.token, transport=self.transport, timeout_s=self.timeout_s)


def connection(context: typer.Context) -> Connection:
    """The server that the options before the subcommand named."""
    found: Connection = context.obj
    return found


def read_image(path: str) -> tuple[bytes, str]:
    """An image file's bytes and a name for it; `-` reads standard input.

    Raises:
        ImageError: it is no image that can be sent.
    """
    if path == STANDARD:
        return as_file(sys.stdin.buffer.read())[0], "stdin"
    return as_file(path)[0], path


def to_people() -> Console:
    """Where progress and remarks go: standard error, so that pipes carry data alone."""
    return Console(stderr=True)


def remark(text: str) -> None:
    """Tells people something on standard error, as it is."""
    to_people().print(text, highlight=False, markup=False, soft_wrap=True)


def say(value: object) -> None:
    """Prints a value as one line of JSON on standard output."""
    typer.echo(json.dumps(value))


def limits(
    deadline_ms: float | None,
    max_exit: int | None,
    compute_gmacs: float | None,
    min_confidence: float | None,
    confident_share: float | None,
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
    )


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
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="JSON on standard output, for programs.")
]
