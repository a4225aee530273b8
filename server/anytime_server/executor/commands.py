"""What the server and its executor's process say to each other.

Decides the words, and nothing else; both sides import them, and neither needs to import the other:
torch stays out of the server's own process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from anytime_server.executor.base import Picture, StageDone, StageStopped, View


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the process needs to know.

    Attributes:
        weights: folder or manifest.
        models: names to serve; empty for all.
        engine: "auto", "torch", "native" or "openvino".
        device: of the torch engine.
        threads: compute threads; 0 leaves the choice to the engine.
        profile_size: (H, W) px at which costs are measured.
    """

    weights: Path
    models: tuple[str, ...]
    engine: str
    device: str
    threads: int
    profile_size: tuple[int, int]


# What the server says.


class Begin(NamedTuple):
    """An image of `shape` lies in the shared memory, and its first stage follows; no answer."""

    job_id: str
    model: str
    shape: tuple[int, int, int]


class RunStage(NamedTuple):
    """Make exits; answered by `StageDone` or `StageStopped` of the last, or by `Fault`.

    Attributes:
        job_id: of a job that has begun.
        stage: the first of them, from 1.
        through: the last of them, unless the hold word names this run: then it ends with the one
            under way. All but the last are noted in the shared memory.
        number: of this run; the stop word names it to stop it.
        view: how to show the last exit at once, or None.
        go_ahead: begin the stage after it while the server decides, unless the hold word names
            this run.
    """

    job_id: str
    stage: int
    through: int
    number: int
    view: View | None
    go_ahead: bool = False


class Show(NamedTuple):
    """Show the last exit; answered by `Picture` or `Fault`."""

    job_id: str
    view: View


class Forget(NamedTuple):
    """A job is over; no answer."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was asked could not be done."""

    detail: str


Command: TypeAlias = Begin | RunStage | Show | Forget
Reply: TypeAlias = StageDone | StageStopped | Picture | Fault
