"""What the engine asks of an executor: run stages of a job, render an exit.

The real one is `process.ProcessExecutor`; tests use a fake. An executor does one thing at a time,
in the order in which it was asked; only `set_limits` takes effect at once.

What goes from process to process with every answer is a NamedTuple, as those pickle in C.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anytime_protocol.messages import OutputOptions, ReuseOptions
from anytime_protocol.model_info import ModelInfo
from anytime_server.core.costs import ModelProfile
from anytime_server.core.decisions import ExitReport, RunLimits
from anytime_server.images import Image


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the executor has loaded and measured.

    Attributes:
        info: what clients are told.
        profile: what the scheduler is told.
        engine: what computes it.
        render_s_per_px: seconds that rendering an exit takes, for each pixel of the image.
    """

    info: ModelInfo
    profile: ModelProfile
    engine: str
    render_s_per_px: float

    @property
    def palette(self) -> bytes:
        """Red, green, blue for each class id from 0 to the last."""
        colors = {c.id: bytes(c.color) for c in self.info.classes}
        last = max(colors, default=0)
        return b"".join(colors.get(i, bytes((i, i, i))) for i in range(last + 1))


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Which maps of an exit are rendered, and how large.

    Attributes:
        scale: of the maps relative to the image: 1, 0.5 or 0.25.
        confidence: also the confidence map.
        active: also the mask of active pixels.
        heatmaps: also the heat-maps, of a pose model.
    """

    scale: float = 1.0
    confidence: bool = False
    active: bool = False
    heatmaps: bool = False

    @classmethod
    def of(cls, output: OutputOptions) -> RenderOptions:
        """What a client's output options need."""
        return cls(output.scale, output.confidence, output.active, output.heatmaps)


class RenderedExit(NamedTuple):
    """One exit at the size that was asked for: all that encoding an answer needs.

    Attributes:
        exit: number of the exit.
        height: of the image, px.
        width: of the image, px.
        labels: (h, w) class ids; None for pose.
        keypoints: (J, 3) x, y in px of the image and a score from 0 to 1; None for segmentation.
        confidence: (h, w), 0 to 255; None if not asked for.
        active: (h, w), 0 or 1; None if not asked for.
        heatmaps: (J, H/4, W/4); None if not asked for.
        elapsed_s: seconds that rendering took.
    """

    exit: int
    height: int
    width: int
    labels: NDArray[np.uint8] | None
    keypoints: NDArray[np.float32] | None
    confidence: NDArray[np.uint8] | None
    active: NDArray[np.uint8] | None
    heatmaps: NDArray[np.float16] | None
    elapsed_s: float


class FinishedFrame(NamedTuple):
    """How much of a stream's frame was taken from earlier ones.

    Attributes:
        share: of its positions, 0 to 1.
        oldest: frames since the oldest of them was computed.
        difference: share of the pixels, 0 to 1, that differed from those of the same frames
            computed alone; None before any was checked.
        checked: frames that it was measured on.
        wants_check: it should be computed once more, alone, when there is nothing else to do.
    """

    share: float = 0.0
    oldest: int = 0
    difference: float | None = None
    checked: int = 0
    wants_check: bool = False


class StreamMemory(NamedTuple):
    """What is kept of a stream from frame to frame, in the executor.

    Attributes:
        stream: unique among the streams of the server.
        reuse: how far frames may be answered from it.
    """

    stream: str
    reuse: ReuseOptions


class RunCommand(NamedTuple):
    """Compute stages of a job, one after the other, as far as the limits allow.

    Attributes:
        job_id: the job.
        model: its model.
        stage: the first stage, from 1: the one after the last exit made.
        limits: how far to go; `Executor.set_limits` changes them.
        image: with the first command for a job, its image; None later.
        size: (H, W) px of that image before it was reduced, which maps come back at.
        render: how to render an exit that is going to be shown; None to render nothing.
        each_exit: report and render every exit, not only the last of the run.
        risk: with the image: of the certificate whose masks to use, 0 for no masks; None for the
            model's own.
        monotone: with the image: make each map the product of those before it.
        memory: with the image: of the stream that it is a frame of; None computes it alone.
    """

    job_id: str
    model: str
    stage: int
    limits: RunLimits
    image: Image | None = None
    size: tuple[int, int] = (0, 0)
    render: RenderOptions | None = None
    each_exit: bool = False
    risk: float | None = None
    monotone: bool = False
    memory: StreamMemory | None = None


class RunEnd(NamedTuple):
    """How a run ended.

    Attributes:
        wasted_s: seconds spent on a stage that was stopped half-way; 0 if none was.
        rendered: the last exit, if it was to be rendered; None also if there was no time for it.
    """

    wasted_s: float
    rendered: RenderedExit | None


OnExit: TypeAlias = Callable[[RenderedExit | None], None]
"""Called on the event loop after an exit in the middle of a run, with it if it was rendered."""


class Executor(Protocol):
    """Computes stages, one at a time. All methods are called on the event loop."""

    @property
    def engine_bytes(self) -> int:
        """Memory that the engines hold for images under way."""
        ...

    @property
    def resident_bytes(self) -> int:
        """Resident memory of its process; 0 where there is none, or it is not known."""
        ...

    async def start(self, on_failure: Callable[[], None]) -> tuple[ServedModel, ...]:
        """Loads, warms up and measures the models; also starts again after a crash.

        Args:
            on_failure: called when the executor dies, later, while no call waits for it.

        Raises:
            ExecutorStartError: it cannot.
        """
        ...

    def run(
        self, command: RunCommand, on_exit: OnExit, on_end: Callable[[], None]
    ) -> Coroutine[Any, Any, RunEnd]:
        """Computes a run; `take_exits` tells what it has made.

        Begins at the call, and not when its end is awaited: whatever else the event loop has to do
        by then, such as the answer of the request before, is done while this one is computed.

        Args:
            command: the run.
            on_exit: see `OnExit`.
            on_end: called on the event loop as soon as the run has ended, well or not, so that
                whoever waits for that need not wait for the coroutine's turn first; perhaps more
                often.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there; exits before the fault may have been made.
        """
        ...

    def set_limits(self, limits: RunLimits) -> None:
        """Changes how far the run under way may go; without one, nothing happens."""
        ...

    def take_exits(self) -> list[ExitReport]:
        """Exits of the run under way, or of the last one, that have not been taken yet."""
        ...

    async def render(self, job_id: str, options: RenderOptions) -> RenderedExit:
        """The last exit that was made of a job.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        ...

    def prepare(self, model: str, size: tuple[int, int], sides: int | None) -> None:
        """Has a model get ready for images of (H, W) px before the next run; returns at once.

        Args:
            model: its name.
            size: of the images.
            sides: at how many of the ladder's, the smallest first; None for all. A run gets ready
                for a further one when it comes to it.
        """
        ...

    def forget(self, job_id: str) -> None:
        """A job is over: its state may go. Returns at once; unknown ids are ignored."""
        ...

    async def finish_frame(self, job_id: str) -> FinishedFrame:
        """A frame of a stream is over: later ones may be answered from what it has found.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        ...

    async def check_frame(self, stream: str) -> bool:
        """Computes the last frame of a stream once more, alone, and compares.

        Returns:
            Whether it is done; False if `set_limits` with `STOP` has ended it before.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        ...

    def forget_stream(self, stream: str) -> None:
        """A stream is over, and what was kept of its frames may go; as `forget`."""
        ...

    async def close(self) -> None:
        """Ends the executor; may be called at any time, more than once."""
        ...
