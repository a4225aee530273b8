"""A server without a network: an executor that computes nothing, on a clock that tests move."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image as Pillow

from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import OutputOptions
from anytime_protocol.enums import Task
from anytime_protocol.resources import ClassInfo, ExitInfo, ModelInfo
from anytime_server.core.costs import ModelProfile, SizeProfile, StageCost
from anytime_server.core.jobs import Job, StageResult
from anytime_server.engine.requests import Ended, Happening, Shown, Ticket
from anytime_server.executor.base import (
    ExecutorCallError,
    ExecutorCrashedError,
    Image,
    Picture,
    ServedModel,
    StageDone,
    StageStopped,
    View,
)
from anytime_server.images import Decoded

STAGE_S = (0.010, 0.020, 0.020, 0.040)
GMACS = (1.0, 2.0, 3.0, 4.0)
SIZE = (48, 64)

STREET = ModelInfo(
    "street",
    Task.SEGMENTATION,
    tuple(ExitInfo(sum(GMACS[: k + 1]), 0.5 + k / 10) for k in range(4)),
    classes=tuple(ClassInfo(k, f"class {k}", (k * 40, 255 - k * 40, 7)) for k in range(5)),
)
POSE = ModelInfo(
    "pose",
    Task.POSE,
    tuple(ExitInfo(sum(GMACS[: k + 1])) for k in range(4)),
    keypoints=("ankle", "knee", "hip"),
    skeleton=((0, 1), (1, 2)),
)


def served(info: ModelInfo = STREET, scale: float = 1.0) -> ServedModel:
    stages = tuple(
        StageCost(s * scale, 0.0, fixed_gmacs=g) for s, g in zip(STAGE_S, GMACS, strict=True)
    )
    quality = (0.5, 0.6, 0.7, 0.8)
    profile = ModelProfile(info.name, (SizeProfile(*SIZE, stages),), quality)
    return ServedModel(info, profile, "fake", 1e-4 / (SIZE[0] * SIZE[1]))


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeExecutor:
    """Makes exits without computing; the map of exit k is k everywhere but for its first row.

    Attributes:
        clock: moved by each stage; with None a stage takes no time at all.
        on_stage: called at the start of a stage with the job and the stage.
        crash_at: jobs whose next stage kills the executor.
        fail_at: jobs whose next stage is answered by an error.
        gate: a stage waits for it, or for `stop`.
        ahead: `go_ahead` of each call.
        through: `through` of each call.
        quiet: exits that were made without telling anybody.
    """

    clock: FakeClock | None = None
    on_stage: Callable[[str, int], None] = lambda job_id, stage: None
    crash_at: set[str] = field(default_factory=set)
    fail_at: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    models: tuple[ServedModel, ...] = (served(STREET), served(POSE))
    images: dict[str, Image] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    ahead: list[bool] = field(default_factory=list)
    through: list[int | None] = field(default_factory=list)
    quiet: list[StageDone] = field(default_factory=list)
    starts: int = 0
    stops: int = 0
    holds: int = 0
    closed: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self._stop = asyncio.Event()
        self._held = False

    async def start(self) -> tuple[ServedModel, ...]:
        self.starts += 1
        self.images.clear()
        self.exits.clear()
        return self.models

    def begin(self, job_id: str, model: str, image: Image) -> None:
        self.images[job_id] = image
        self.names[job_id] = model
        self.exits[job_id] = 0

    async def run(
        self,
        job_id: str,
        stage: int,
        view: View | None = None,
        *,
        through: int | None = None,
        go_ahead: bool = False,
    ) -> StageDone | StageStopped:
        self.ahead.append(go_ahead)
        self.through.append(through)
        assert not self.running.is_set(), "two stages at a time"
        assert not self.quiet, "the exits of the last call were never looked at"
        self._stop.clear()
        self._held = False
        self.running.set()
        last = through or stage
        try:
            done = await self._make(job_id, stage)
            while isinstance(done, StageDone) and stage < last and not self._held:
                self.quiet.append(done)
                stage += 1
                done = await self._make(job_id, stage)
            if isinstance(done, StageDone) and stage == last and view is not None:
                return done._replace(picture=await self.show(job_id, view))
            return done
        finally:
            self.running.clear()

    def made(self) -> tuple[StageDone, ...]:
        made = tuple(self.quiet)
        self.quiet.clear()
        return made

    async def _make(self, job_id: str, stage: int) -> StageDone | StageStopped:
        self.log.append(("run", job_id, stage))
        assert self.exits[job_id] == stage - 1, "a stage without the one before it"
        self.on_stage(job_id, stage)
        if job_id in self.crash_at:
            self.crash_at.discard(job_id)
            raise ExecutorCrashedError("the executor died (exit code -9)")
        if job_id in self.fail_at:
            raise ExecutorCallError("MemoryError: no memory")
        elapsed_s = STAGE_S[stage - 1]
        await asyncio.sleep(0)
        if not self.gate.is_set():
            gate, stop = (asyncio.ensure_future(e.wait()) for e in (self.gate, self._stop))
            try:
                await asyncio.wait({gate, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gate.cancel()
                stop.cancel()
        if self._stop.is_set():
            self._move(elapsed_s / 2)
            return StageStopped(elapsed_s / 2)
        self._move(elapsed_s)
        self.exits[job_id] = stage
        share = 1.0 - stage / 5
        result = StageResult(stage / 5, share, 1.0 - share, GMACS[stage - 1])
        return StageDone(result, elapsed_s)

    def _move(self, elapsed_s: float) -> None:
        if self.clock is not None:
            self.clock.now += elapsed_s

    async def show(self, job_id: str, view: View) -> Picture:
        exit_ = self.exits[job_id]
        self.log.append(("show", job_id, exit_))
        height, width = self.images[job_id].shape[:2]
        step = round(1 / view.scale)
        labels = np.full((-(-height // step), -(-width // step)), exit_, np.uint8)
        labels[0] = 0
        pose = self.names[job_id] == "pose"
        points = np.array([[1.5, 2.5, 0.25], [3, 4, 0.5], [5, 6, 1.0]], np.float32)
        return Picture(
            exit=exit_,
            height=height,
            width=width,
            labels=None if pose else labels,
            keypoints=points if pose else None,
            confidence=labels * 10 if view.confidence else None,
            active=(labels > 2).astype(np.uint8) if view.active else None,
            heatmaps=np.ones((3, 4, 5), np.float16) if view.heatmaps and pose else None,
            elapsed_s=1e-4,
        )

    def stop(self) -> None:
        self.stops += 1
        self._stop.set()

    def hold(self) -> None:
        self.holds += 1
        self._held = True

    def forget(self, job_id: str) -> None:
        self.log.append(("forget", job_id, 0))
        self.images.pop(job_id, None)

    async def close(self) -> None:
        self.closed = True


@dataclass
class Teller:
    """A client's side of a ticket: keeps what it is told."""

    told: list[Happening] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, happening: Happening) -> None:
        self.told.append(happening)
        if isinstance(happening, Ended):
            self.over.set()

    @property
    def exits(self) -> list[int]:
        return [h.picture.exit for h in self.told if isinstance(h, Shown)]

    @property
    def ends(self) -> list[Ended]:
        return [h for h in self.told if isinstance(h, Ended)]

    @property
    def end(self) -> Ended:
        (end,) = self.ends
        return end


def ticket(
    job_id: str, teller: Teller, now: float, budget: Budget | None = None, **changes: object
) -> Ticket:
    job = Job(job_id, "street", *SIZE, now, budget or Budget())
    values = {
        "served": served(),
        "want": OutputOptions(),
        "transport": "http",
        "sink": teller,
    } | changes
    return Ticket(job, **values)


async def load() -> Decoded:
    return Decoded(np.zeros((*SIZE, 3), np.uint8), 1e-4, 1e-4)


def picture_file(kind: str = "JPEG", size: tuple[int, int] = SIZE, mode: str = "RGB") -> bytes:
    """An image file of (H, W)."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()
