"""The executor's process: holds the networks and does what the server asks, one thing at a time.

Decides how a stage is run and how an exit becomes a picture. Knows no budget, no deadline and no
queue: between two modules of the network it looks at one shared word, and stops when that names the
run that it is in. The only module beside `cli` that knows `anytime_model`.

The process ignores Ctrl-C (the server, which gets it too, decides when to end) and ends when the
pipe to the server is closed, whoever closed it.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anytime_model.checkpoint import load_model
from anytime_model.confidence import Criterion, HeatmapMaximum, MaximumProbability
from anytime_model.engines.base import Engine, ExitResult, Keypoints, Run, SegmentationMap
from anytime_model.engines.select import make_engine
from anytime_model.errors import AnytimeModelError
from anytime_model.kernels.library import KernelError
from anytime_model.manifest import MANIFEST, Card, read_manifest
from anytime_protocol.models import ClassInfo, ExitInfo, ModelInfo
from anytime_protocol.vocabulary import Task
from anytime_server.costs import ModelProfile, SizeProfile, StageCost
from anytime_server.executor import Image, Picture, ServedModel, StageDone, StageStopped, View
from anytime_server.executor_memory import Shared
from anytime_server.executor_messages import (
    Begin,
    Command,
    Fault,
    Forget,
    Reply,
    RunStage,
    Show,
    WorkerSettings,
)
from anytime_server.jobs import StageResult

logger = logging.getLogger(__name__)

_REPEATS = 3
"""Profiled runs of which the median counts; one more before them warms up."""

_STRIDE = 4
"""Maps are made at 1/4 of the image."""


class _StoppedError(Exception):
    """Raised out of `pause`; no fault, but the only way out of the middle of a stage."""


@dataclass(slots=True)
class _Loaded:
    engine: Engine
    card: Card

    def criterion(self, stage: int) -> Criterion | None:
        """What settles pixels after a stage; the last exit is judged like the one before it."""
        criteria = self.card.criteria()
        return criteria[stage - 1] or criteria[stage - 2]


@dataclass(slots=True)
class _Work:
    """A job's state: its image, the run under way and the last exit."""

    loaded: _Loaded
    image: Image
    run: Run | None = None
    last: ExitResult | None = None


def main(pipe: Connection, shared: Shared, settings: WorkerSettings) -> None:
    """Runs the process to its end.

    Args:
        pipe: to the server; the first message is a tuple of `ServedModel`, or a `Fault`.
        shared: memory that the server sees, too.
        settings: see there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.captureWarnings(capture=True)  # among them why a slower engine had to be taken
    _limit_threads(settings.threads)
    try:
        loaded = load(settings)
        served = tuple(profile(item, settings.profile_size) for item in loaded.values())
    except (AnytimeModelError, KernelError, OSError) as error:
        pipe.send(Fault(str(error)))
        return
    pipe.send(served)
    Worker(loaded, shared).serve(pipe)


class Worker:
    """Answers commands.

    Args:
        loaded: the models by name.
        shared: see `main`.
    """

    def __init__(self, loaded: dict[str, _Loaded], shared: Shared) -> None:
        self._loaded = loaded
        self._shared = shared
        self._work: dict[str, _Work] = {}

    def serve(self, pipe: Connection) -> None:
        """Answers until the other side has closed the pipe."""
        while True:
            try:
                command = pipe.recv()
            except (EOFError, ConnectionError):
                return
            reply = self.answer(command)
            if reply is not None:
                pipe.send(reply)

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
        work = self._work[command.job_id]

        def pause() -> None:
            if self._shared.stop_word[0] == command.number:
                raise _StoppedError

        began = time.perf_counter()
        try:
            pause()
            result = self._advance(work, command.stage, pause)
        except _StoppedError:
            work.run = None
            return StageStopped(time.perf_counter() - began)
        elapsed_s = time.perf_counter() - began
        picture = None if command.view is None else self._show(work, command.view)
        return StageDone(judge(result, work.loaded.card), elapsed_s, picture)

    def _show(self, work: _Work, view: View) -> Picture:
        return self._shared.write_picture(show(work, view))

    def _advance(self, work: _Work, stage: int, pause: Callable[[], None]) -> ExitResult:
        """One stage; after a stopped one, whose run is dead, the stages before it once more."""
        if work.run is None:
            work.run = work.loaded.engine.begin(work.image)
        while work.run.exit < stage:
            result = work.run.advance(work.loaded.criterion(work.run.exit + 1), pause)
        work.last = result
        return result


def judge(result: ExitResult, card: Card) -> StageResult:
    """What the scheduler and the client are told about an exit.

    A pose's confidence is the mean over its joints of the heat-maps' peaks: that of the map would
    mostly measure background.
    """
    rows, columns = result.inside
    if card.config.task == "pose":
        peaks = result.logits[:, rows, columns].max(axis=(1, 2))
        confidence = float(peaks.clip(0.0, 1.0).mean())
    else:
        confidence = min(max(result.mean_confidence, 0.0), 1.0)
    return StageResult(
        confidence=confidence,
        active_share=result.active_share,
        confident_share=1.0 - float(result.active[rows, columns].mean()),
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


# Loading and measuring.


def load(settings: WorkerSettings) -> dict[str, _Loaded]:
    """The models that are to be served, in the manifest's order.

    Raises:
        CheckpointError: weights or manifest are missing or wrong.
        AnytimeModelError: a model that was asked for is not in the manifest, or there is none.
    """
    cards = read_manifest(settings.weights)
    folder = settings.weights if settings.weights.is_dir() else settings.weights.parent
    unknown = sorted(set(settings.models) - set(cards))
    if unknown or not cards:
        raise AnytimeModelError(
            f"{folder / MANIFEST} has {', '.join(cards) or 'no model at all'}; expected "
            f"{', '.join(unknown) or 'at least one'}. Correct the names or the folder."
        )
    wanted = settings.models or tuple(cards)
    return {name: _load(cards[name], folder, settings) for name in wanted}


def _load(card: Card, folder: Path, settings: WorkerSettings) -> _Loaded:
    checkpoint = load_model(card, folder)
    return _Loaded(make_engine(checkpoint, settings.engine, device=settings.device), card)


def profile(loaded: _Loaded, size: tuple[int, int]) -> ServedModel:
    """Warms a model up and measures what each stage costs.

    A stage's time splits into a fixed part and one that goes with the share of active pixels: runs
    with everything active and with nothing active tell both. A dense engine has a fixed part only.
    """
    dense_s, dense_gmacs, show_s = _time_stages(loaded, size, None)
    sparse_s, sparse_gmacs = dense_s, dense_gmacs
    if loaded.engine.sparse:
        nothing: Criterion = MaximumProbability(-1.0)
        if loaded.card.config.task == "pose":
            nothing = HeatmapMaximum(1e9)
        sparse_s, sparse_gmacs, _ = _time_stages(loaded, size, nothing)
    stages = tuple(
        StageCost(min(s0, s1), max(s1 - s0, 0.0), min(g0, g1), max(g1 - g0, 0.0))
        for s0, s1, g0, g1 in zip(sparse_s, dense_s, sparse_gmacs, dense_gmacs, strict=True)
    )
    quality = () if loaded.card.quality is None else loaded.card.quality.per_exit
    costs = ModelProfile(loaded.card.name, (SizeProfile(*size, stages),), quality)
    return ServedModel(describe(loaded.card, dense_gmacs), costs, loaded.engine.name, show_s)


def _time_stages(
    loaded: _Loaded, size: tuple[int, int], criterion: Criterion | None
) -> tuple[list[float], list[float], float]:
    """Median seconds and 1e9 multiply-adds of each stage, and the median seconds of a picture."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    times: list[list[float]] = []
    shows: list[float] = []
    gmacs: list[float] = []
    for _ in range(1 + _REPEATS):
        gmacs = []
        row: list[float] = []
        began = time.perf_counter()
        run = loaded.engine.begin(image)
        for _stage in loaded.card.criteria():
            result = run.advance(criterion, None)
            row.append(time.perf_counter() - began)
            gmacs.append(result.macs / 1e9)
            began = time.perf_counter()
        loaded.engine.decode(result)
        shows.append(time.perf_counter() - began)
        times.append(row)
    stages = [statistics.median(column) for column in zip(*times[1:], strict=True)]
    return stages, gmacs, statistics.median(shows[1:])


def describe(card: Card, gmacs: Sequence[float]) -> ModelInfo:
    """What clients are told about a model.

    Args:
        card: its manifest entry.
        gmacs: 1e9 multiply-adds of each stage, unmasked.
    """
    quality = [None] * len(gmacs) if card.quality is None else list(card.quality.per_exit)
    exits = tuple(ExitInfo(sum(gmacs[: index + 1]), value) for index, value in enumerate(quality))
    task = Task(card.config.task)
    if task is Task.POSE:
        joints = tuple(label.name for label in card.labels)
        return ModelInfo(card.name, task, exits, keypoints=joints, skeleton=card.skeleton)
    classes = tuple(
        ClassInfo(index, label.name, _rgb(label.color)) for index, label in enumerate(card.labels)
    )
    return ModelInfo(card.name, task, exits, classes=classes)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def _limit_threads(threads: int) -> None:
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if threads:
        os.environ["ANYTIME_THREADS"] = str(threads)  # read by the native kernels when they load
