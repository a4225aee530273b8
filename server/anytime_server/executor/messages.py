"""What the server and its executor's process send each other through their pipe.

Both sides import this module and neither the other: PyTorch stays out of the server's own process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from anytime_protocol.enums import ErrorCode
from anytime_server.executor.base import (
    FinishedFrame,
    RenderedExit,
    RenderOptions,
    RunEnd,
    ServedModel,
    StreamMemory,
)
from anytime_server.images import Image


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the process needs to know.

    Attributes:
        weights: folder or manifest.
        models: names to serve; empty for all.
        engine: "auto", "torch", "native" or "openvino".
        device: of the torch engine.
        threads: compute threads; 0 leaves the choice to the engine.
        cpus: numbers of the CPUs that the process is bound to; empty for no bound.
        precision: "auto", "f32", "bf16" or "int8".
        profile_size: (H, W) px at which costs are measured.
        engine_memory_bytes: that all engines together may hold for images under way.
        log_level: least severe message that is logged.
        log_json: log one JSON object a line instead of text.
    """

    weights: Path
    models: tuple[str, ...]
    engine: str
    device: str
    threads: int
    profile_size: tuple[int, int]
    cpus: tuple[int, ...] = ()
    precision: str = "auto"
    engine_memory_bytes: int = 2**31
    log_level: str = "info"
    log_json: bool = False


class StartRun(NamedTuple):
    """Compute stages of a job; answered by any number of `ExitMade`, then `RunEnd` or `Fault`.

    Attributes:
        run: its number; the control block's words are about it.
        job_id: the job.
        model: its model.
        stage: the first stage, from 1.
        image: with the first command for a job, its image, or the shape of the one in the shared
            memory; None later.
        size: (H, W) px of that image before it was reduced.
        render: how to render an exit that is going to be shown; None to render nothing.
        render_from: the exit from which on the last exit of the run is rendered.
        each_exit: report and render every exit.
        risk: see `RunCommand`.
        monotone: see `RunCommand`.
        memory: see `RunCommand`.
    """

    run: int
    job_id: str
    model: str
    stage: int
    image: Image | tuple[int, int, int] | None
    size: tuple[int, int]
    render: RenderOptions | None
    render_from: int
    each_exit: bool
    risk: float | None
    monotone: bool
    memory: StreamMemory | None = None


class Render(NamedTuple):
    """Render the last exit of a job; answered by `RenderedExit` or `Fault`."""

    job_id: str
    options: RenderOptions


class Prepare(NamedTuple):
    """Get ready for images of (H, W) px, see `Executor.prepare`; no answer."""

    model: str
    size: tuple[int, int]
    sides: int | None


class Beat(NamedTuple):
    """Show a sign of life; no answer."""


class Forget(NamedTuple):
    """A job is over; no answer."""

    job_id: str


class FinishFrame(NamedTuple):
    """A frame of a stream is over; answered by `FinishedFrame` or `Fault`."""

    job_id: str


class CheckFrame(NamedTuple):
    """Compute the last frame of a stream once more, alone; answered by `Checked` or `Fault`.

    Attributes:
        run: its number; the control block's words are about it.
        stream: the stream.
    """

    run: int
    stream: str


class Checked(NamedTuple):
    """A check has ended.

    Attributes:
        is_done: it was not stopped before.
    """

    is_done: bool


class ForgetStream(NamedTuple):
    """A stream is over; no answer."""

    stream: str


class ExitMade(NamedTuple):
    """An exit in the middle of a run; its report is in the control block."""

    rendered: RenderedExit | None


class Fault(NamedTuple):
    """Something that was asked could not be done.

    Attributes:
        detail: the error.
        code: what its client is told.
    """

    detail: str
    code: ErrorCode = ErrorCode.INTERNAL


class Started(NamedTuple):
    """The models are loaded and measured: the first message of the process."""

    models: tuple[ServedModel, ...]


Command: TypeAlias = (
    StartRun | Render | Prepare | Forget | FinishFrame | CheckFrame | ForgetStream | Beat
)
Reply: TypeAlias = Started | ExitMade | RunEnd | RenderedExit | FinishedFrame | Checked | Fault
