"""What the server asks of whatever computes: load an image, make an exit, show a map.

Decides the words between the engine loop and an executor. Knows neither torch nor processes: the
real one is `executor_process.ProcessExecutor`, tests use a fake. An executor does one thing at a
time, in the order in which it was asked; only `stop` overtakes.

What goes from process to process with every answer is a NamedTuple, as those pickle in C: with
caches cold, sending and receiving a dataclass took 0.3 ms, and takes 0.2 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.resources import ModelInfo
from anytime_server.core.costs import ModelProfile
from anytime_server.core.jobs import StageResult
from anytime_server.errors import ServerError

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""


class ExecutorCrashedError(ServerError):
    """The executor is gone, and with it the state of every request that it had begun."""


class ExecutorCallError(ServerError):
    """The executor could not do one thing that it was asked; it goes on with the next.

    Attributes:
        detail: the error's type and text, without a traceback.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(f"the executor failed: {detail}")
        self.detail = detail


class ExecutorStartError(ServerError):
    """The executor cannot start: no weights, or weights that cannot be used."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that the executor has loaded and measured.

    Attributes:
        info: what clients are told.
        profile: what the scheduler is told.
        engine: what computes it.
        show_s_per_px: seconds that a picture takes, for each pixel of the image.
    """

    info: ModelInfo
    profile: ModelProfile
    engine: str
    show_s_per_px: float

    @property
    def palette(self) -> bytes:
        """Red, green, blue for each class id from 0 to the last."""
        colors = {c.id: bytes(c.color) for c in self.info.classes}
        last = max(colors, default=0)
        return b"".join(colors.get(i, bytes((i, i, i))) for i in range(last + 1))


@dataclass(frozen=True, slots=True)
class View:
    """What is to be shown of an exit.

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
    def of(cls, want: OutputOptions) -> View:
        """What a client wants to see."""
        return cls(want.scale, want.confidence, want.active, want.heatmaps)


class Picture(NamedTuple):
    """One exit, at the size that was asked for: all that encoding an answer needs.

    Attributes:
        exit: number of the exit.
        height: of the image, px.
        width: of the image, px.
        labels: (h, w) class ids; None for pose.
        keypoints: (J, 3) x, y in px of the image and a score from 0 to 1; None for segmentation.
        confidence: (h, w), 0 to 255; None if not asked for.
        active: (h, w), 0 or 1; None if not asked for.
        heatmaps: (J, H/4, W/4); None if not asked for.
        elapsed_s: seconds that it took to make.
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


class StageDone(NamedTuple):
    """A stage has ended by itself after `elapsed_s`; with its picture, if one was asked for."""

    result: StageResult
    elapsed_s: float
    picture: Picture | None = None


class StageStopped(NamedTuple):
    """A stage was stopped after `elapsed_s`: its work is lost, the exits before it are not."""

    elapsed_s: float


class Executor(Protocol):
    """Computes stages, one at a time. All methods are called on the event loop."""

    async def start(self) -> tuple[ServedModel, ...]:
        """Loads, warms up and measures the models; also starts again after a crash.

        Raises:
            ExecutorStartError: it cannot.
        """
        ...

    def begin(self, job_id: str, model: str, image: Image) -> None:
        """Hands over the image of a job; returns at once."""
        ...

    async def run(
        self,
        job_id: str,
        stage: int,
        view: View | None = None,
        *,
        through: int | None = None,
        go_ahead: bool = False,
    ) -> StageDone | StageStopped:
        """Makes an exit, or several.

        Args:
            job_id: of a job that has begun.
            stage: the one after the last that was made, from 1.
            view: how to show the last one at once; None if nobody is going to look.
            through: the stage to end with; `stage` by default. It may end with an earlier one.
            go_ahead: the next call will probably be for the stage after it, so that the executor
                may begin that while it is being decided. A guess that was wrong costs the time of
                a look at the stop word, and if another job is run instead, the job's stages so far.

        Returns:
            How the last stage ended; `made` tells of those before it.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        ...

    def made(self) -> tuple[StageDone, ...]:
        """Exits of the running call, or of the last one, that nobody has been told of yet.

        They come without pictures. The one that the call returns is not among them.
        """
        ...

    async def show(self, job_id: str, view: View) -> Picture:
        """The last exit that was made of a job.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        ...

    def stop(self) -> None:
        """Stops the running stage as soon as possible; without one, nothing happens."""
        ...

    def hold(self) -> None:
        """Takes back `through` and `go_ahead` of the running call: it ends with this stage."""
        ...

    def forget(self, job_id: str) -> None:
        """A job is over: its state may go. Returns at once; unknown ids are ignored."""
        ...

    async def close(self) -> None:
        """Ends the executor; may be called at any time, more than once."""
        ...
