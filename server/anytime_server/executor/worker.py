"""The executor's process: holds the networks and does what the server asks, one thing at a time.

Decides how a stage is run and how an exit becomes a picture. Knows no budget, no deadline and no
queue: between two modules of the network it looks at one shared word, and stops when that names the
run that it is in. With `executor_loading` the only module that knows `anytime_model`.

It does not stand idle while the server makes up its mind. After an image, and after a stage where
the server has said so, it begins the stage that will most likely be asked for, and looks for the
server's word in between: the stage is taken over as it is when it was the right one, else dropped.

The process ignores Ctrl-C (the server, which gets it too, decides when to end) and ends when the
pipe to the server is closed, whoever closed it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_model.engines.base import ExitResult, Keypoints, Run, SegmentationMap
from anytime_model.errors import AnytimeModelError
from anytime_model.manifest import Card
from anytime_server.core.jobs import StageResult
from anytime_server.executor.base import Image, Picture, StageDone, StageStopped, View
from anytime_server.executor.commands import (
    Begin,
    Command,
    Fault,
    Forget,
    Reply,
    RunStage,
    Show,
    WorkerSettings,
)
from anytime_server.executor.control import Shared
from anytime_server.executor.loading import Loaded, load, profile
from anytime_server.heap import keep_what_is_freed, spare_what_stays

logger = logging.getLogger(__name__)

_STRIDE = 4
"""Maps are made at 1/4 of the image."""


class _StoppedError(Exception):
    """Raised out of `pause`; no fault, but the only way out of the middle of a stage."""


@dataclass(frozen=True, slots=True)
class _Made:
    """An exit and the seconds that it took."""

    result: ExitResult
    elapsed_s: float


@dataclass(slots=True)
class _Work:
    """A job's state.

    Attributes:
        loaded: its model.
        image: its image.
        run: under way, or None where it has to begin anew.
        last: the last exit that was asked for.
        early: outcome of the stage after that, begun before it was asked for.
    """

    loaded: Loaded
    image: Image
    run: Run | None = None
    last: ExitResult | None = None
    early: _Made | StageStopped | None = None


def main(pipe: Connection, shared: Shared, settings: WorkerSettings) -> None:
    """Runs the process to its end.

    Args:
        pipe: to the server; the first message is a tuple of `ServedModel`, or a `Fault`.
        shared: memory that the server sees, too.
        settings: see there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.captureWarnings(capture=True)  # among them why a slower engine had to be taken
    keep_what_is_freed()
    _limit_threads(settings.threads)
    try:
        loaded = load(settings)
        served = tuple(profile(item, settings.profile_size) for item in loaded.values())
    except (AnytimeModelError, OSError) as error:
        pipe.send(Fault(str(error)))
        return
    spare_what_stays()
    pipe.send(served)
    Worker(loaded, shared).serve(pipe)


class Worker:
    """Answers commands.

    Args:
        loaded: the models by name.
        shared: see `main`.
    """

    def __init__(self, loaded: dict[str, Loaded], shared: Shared) -> None:
        self._loaded = loaded
        self._shared = shared
        self._work: dict[str, _Work] = {}

    def serve(self, pipe: Connection) -> None:
        """Answers until the other side has closed the pipe."""
        line = _Line(pipe)
        try:
            while True:
                command: Command | None = line.take()
                while command is not None:
                    reply = self.answer(command)
                    if reply is not None:
                        pipe.send(reply)
                    command = self._go_ahead(command, line)
        except (EOFError, ConnectionError):
            return

    def answer(self, command: Command) -> Reply | None:
        """Does what is asked; a fault of one job is told, not raised."""
        try:
            match command:
                case Begin():
                    self._begin(command)
                    return None
                case Forget():
                    self._work.pop(command.job_id, None)
                    return None
                case Show():
                    return self._show(self._work[command.job_id], command.view)
                case RunStage():
                    return self._run(command)
        except Exception as error:
            # Whatever one job meets (out of memory, say), the others go on.
            logger.exception("command %s failed", type(command).__name__)
            return Fault(f"{type(error).__name__}: {error}")

    def _begin(self, command: Begin) -> None:
        """Takes an image in; an engine that prepares for its size does so here, unmeasured."""
        loaded = self._loaded[command.model]
        work = _Work(loaded, self._shared.read_image(command.shape))
        self._work[command.job_id] = work
        try:
            work.run = loaded.engine.begin(work.image)
        except Exception:
            # Nobody waits for an answer here; the first stage tries again, and tells.
            logger.exception("no run for an image of shape %s", command.shape)

    def _run(self, command: RunStage) -> StageDone | StageStopped:
        work, stage = self._work[command.job_id], command.stage
        made, work.early = work.early, None
        while True:
            made = made or _compute(work, stage, lambda: self._obey(command))
            if isinstance(made, StageStopped):
                return made
            work.last = made.result
            done = StageDone(judge(made.result, work.loaded.card), made.elapsed_s)
            if stage >= command.through and command.view is not None:
                return done._replace(picture=self._show(work, command.view))
            if stage >= command.through or self._shared.hold_word[0] == command.number:
                return done
            self._shared.write_exit(done)
            made, stage = None, stage + 1

    def _obey(self, command: RunStage) -> None:
        if self._shared.stop_word[0] == command.number:
            raise _StoppedError

    def _show(self, work: _Work, view: View) -> Picture:
        return self._shared.write_picture(show(work, view))

    # Going ahead.

    def _go_ahead(self, answered: Command, line: _Line) -> RunStage | None:
        """Begins the stage that will most likely be asked for.

        Returns:
            The command that has asked for it, whose outcome is there by now, or None if something
            else was said: then what was begun is lost.
        """
        guess = self._guess(answered)
        if guess is None:
            return None
        job_id, stage = guess
        work = self._work[job_id]
        asked: RunStage | None = None

        def settle(command: Command) -> RunStage:
            if isinstance(command, RunStage) and (command.job_id, command.stage) == guess:
                line.take()
                return command
            raise _StoppedError

        def pause() -> None:
            nonlocal asked
            if asked is None:
                command = line.look()
                asked = None if command is None else settle(command)
            if asked is not None:
                self._obey(asked)

        try:
            early = _compute(work, stage, pause)
            if asked is None and isinstance(early, _Made):
                asked = settle(line.wait())
        except (EOFError, ConnectionError):
            raise
        except _StoppedError:
            work.run = None
        except Exception:
            # The stage is computed once more if it is asked for, and tells then.
            logger.exception("stage %d failed before it was answered", stage)
            work.run = None
        else:
            work.early = early if asked else None
        return asked

    def _guess(self, answered: Command) -> tuple[str, int] | None:
        """Job and stage that will most likely be asked for after a command."""
        match answered:
            case Begin(job_id=job_id):
                stage = 1
            case RunStage(job_id=job_id, stage=made, go_ahead=True, number=number):
                if self._shared.hold_word[0] == number:
                    return None
                stage = made + 1
            case _:
                return None
        work = self._work.get(job_id)
        if work is None or work.run is None or stage > work.loaded.exits:
            return None
        return (job_id, stage) if work.run.exit == stage - 1 else None


class _Line:
    """The server's commands, of which the next can be looked at before it is taken."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._next: Command | None = None

    def look(self) -> Command | None:
        """The next command if it has come."""
        return self.wait() if self._next is not None or self._pipe.poll() else None

    def wait(self) -> Command:
        """The next command, as soon as it has come; it stays in the line.

        Raises:
            EOFError: the server has closed the pipe.
        """
        if self._next is None:
            self._next = self._pipe.recv()
        return self._next

    def take(self) -> Command:
        """The next command, as soon as it has come."""
        command, self._next = self.wait(), None
        return command


def _compute(work: _Work, stage: int, pause: Callable[[], None]) -> _Made | StageStopped:
    """One stage; after a stopped one, whose run is dead, the stages before it once more."""
    began = time.perf_counter()
    try:
        pause()
        if work.run is None:
            work.run = work.loaded.engine.begin(work.image)
        while work.run.exit < stage:
            result = work.run.advance(work.loaded.criterion(work.run.exit + 1), pause)
    except _StoppedError:
        work.run = None
        return StageStopped(time.perf_counter() - began)
    return _Made(result, time.perf_counter() - began)


def judge(result: ExitResult, card: Card) -> StageResult:
    """What the scheduler and the client are told about an exit.

    A pose's confidence is the mean over its joints of the heat-maps' peaks: that of the map would
    mostly measure background.
    """
    rows, columns = result.inside
    inside = result.active[rows, columns]
    if card.config.task == "pose":
        peaks = result.logits[:, rows, columns].max(axis=(1, 2))
        confidence = float(peaks.clip(0.0, 1.0).mean())
    else:
        confidence = min(max(result.mean_confidence, 0.0), 1.0)
    return StageResult(
        confidence=confidence,
        active_share=np.count_nonzero(result.active) / result.active.size,
        confident_share=1.0 - np.count_nonzero(inside) / inside.size,
        gmacs=result.macs / 1e9,
    )


def show(work: _Work, view: View) -> Picture:
    """A job's last exit as a picture."""
    began = time.perf_counter()
    result = work.last
    if result is None:
        raise ValueError("no exit has been made yet")
    height, width = result.image_size
    rows, columns = result.inside
    labels = keypoints = None
    if work.loaded.card.config.task == "segmentation" and view.scale == 1 / _STRIDE:
        labels = result.logits[:, rows, columns].argmax(axis=0).astype(np.uint8)
    else:
        match work.loaded.engine.decode(result):
            case SegmentationMap(labels=full):
                step = round(1 / view.scale)
                labels = np.ascontiguousarray(full[::step, ::step])
            case Keypoints(points=points):
                keypoints = points.copy()
                keypoints[:, 2] = keypoints[:, 2].clip(0.0, 1.0)
    confidence = active = heatmaps = None
    if view.confidence:
        scaled = (result.confidence[rows, columns].clip(0.0, 1.0) * 255.0).round()
        confidence = enlarge(scaled.astype(np.uint8), height, width, view.scale)
    if view.active:
        active = enlarge(result.active[rows, columns].view(np.uint8), height, width, view.scale)
    if view.heatmaps and keypoints is not None:
        heatmaps = result.logits[:, rows, columns].astype(np.float16)
    return Picture(
        exit=result.exit,
        height=height,
        width=width,
        labels=labels,
        keypoints=keypoints,
        confidence=confidence,
        active=active,
        heatmaps=heatmaps,
        elapsed_s=time.perf_counter() - began,
    )


def enlarge(quarter: NDArray[np.uint8], height: int, width: int, scale: float) -> NDArray[np.uint8]:
    """A map at 1/4 of the image at another scale: every value repeated, cropped to fit.

    Args:
        quarter: (ceil(H / 4), ceil(W / 4)).
        height: H of the image, px.
        width: W of the image, px.
        scale: 1, 0.5 or 0.25.
    """
    times, step = round(_STRIDE * scale), round(1 / scale)
    if times == 1:
        return np.ascontiguousarray(quarter)
    large = quarter.repeat(times, axis=0).repeat(times, axis=1)
    return np.ascontiguousarray(large[: -(-height // step), : -(-width // step)])


def _limit_threads(threads: int) -> None:
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if threads:
        os.environ["ANYTIME_THREADS"] = str(threads)  # read by the native kernels when they load
