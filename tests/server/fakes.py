"""An executor that computes nothing, a clock that tests move, and a client that records."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anytime_server.core.decisions import CHECK, STOP, ExitReport, RunLimits
from anytime_server.engine.base import ExitRendered, RequestEnded, RequestEvent
from anytime_server.errors import ExecutorCallError, ExecutorCrashedError
from anytime_server.executor.base import (
    FinishedFrame,
    Image,
    OnExit,
    RenderedExit,
    RenderOptions,
    RunCommand,
    RunEnd,
    ServedModel,
)
from server.factories import POSE, STAGE_S, STREET, exit_report, served_model


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
        clock: moved by each stage; with None a stage takes no time, and time is the machine's.
        on_stage: called at the start of a stage with the job and the stage.
        crash_at: jobs whose next stage kills the executor.
        fail_at: jobs whose next stage is answered by an error.
        gate: a stage waits for it, or for limits that stop it.
        commands: the runs that were asked for.
        log: what was done, in order: run, render or forget, the job, and the stage or exit.
        prepared: models and sizes that it was told to get ready for.
        prepared_sides: at how many sides of the ladder each of them.
        limits: of the run under way, as last set.
        may_start: loading waits for it.
        hangs: a stage ignores its limits until the executor is killed.
        reuse: what every frame of a stream is said to have reused.
        may_check: a check waits for it.
        die: what is called when it dies while it is idle.
        engine_bytes: see `Executor`.
        resident_bytes: see `Executor`.
    """

    clock: FakeClock | None = None
    on_stage: Callable[[str, int], None] = lambda job_id, stage: None
    crash_at: set[str] = field(default_factory=set)
    fail_at: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    models: tuple[ServedModel, ...] = (served_model(STREET), served_model(POSE))
    commands: list[RunCommand] = field(default_factory=list)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    prepared: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    prepared_sides: list[int | None] = field(default_factory=list)
    limits: RunLimits = STOP
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    hangs: bool = False
    reuse: FinishedFrame = field(default_factory=FinishedFrame)
    may_check: asyncio.Event = field(default_factory=asyncio.Event)
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    die: Callable[[], None] = lambda: None
    starts: int = 0
    engine_bytes: int = 4096
    resident_bytes: int = 8192
    is_closed: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.may_start.set()
        self._images: dict[str, Image] = {}
        self._models: dict[str, str] = {}
        self._exits: dict[str, int] = {}
        self._reports: list[ExitReport] = []
        self._limits_changed = asyncio.Event()

    def runs(self, job_id: str | None = None) -> list[int]:
        """Stages that were begun, of one job or of all."""
        return [k for what, job, k in self.log if what == "run" and job_id in {None, job}]

    async def start(self, on_failure: Callable[[], None]) -> tuple[ServedModel, ...]:
        self.starts += 1
        self.die = on_failure
        await self.may_start.wait()
        self._images.clear()
        self._exits.clear()
        self._reports.clear()
        return self.models

    def run(
        self, command: RunCommand, on_exit: OnExit, on_end: Callable[[], None]
    ) -> Coroutine[Any, Any, RunEnd]:
        assert not self.running.is_set(), "two runs at a time"
        assert not self._reports, "exits of the last run were never taken"
        self.commands.append(command)
        job_id = command.job_id
        if command.image is not None:
            self._images[job_id] = command.image
            self._models[job_id] = command.model
            self._exits[job_id] = 0
        self.limits = command.limits
        self.running.set()
        return self._run(command, on_exit, on_end)

    async def _run(
        self, command: RunCommand, on_exit: OnExit, on_end: Callable[[], None]
    ) -> RunEnd:
        job_id, stage, planned = command.job_id, command.stage, command.limits.last_stage
        try:
            while True:
                wasted_s = await self._compute(job_id, stage)
                if wasted_s is not None:
                    return RunEnd(wasted_s, None)
                rendering = command.each_exit or stage >= planned
                rendered = None
                if command.render is not None and rendering:
                    rendered = await self.render(job_id, command.render)
                following = [later for later in self.limits.path if later > stage]
                if not following:
                    return RunEnd(0.0, rendered)
                if command.each_exit or self.limits.notify:
                    on_exit(rendered)
                stage = following[0]
        finally:
            self.running.clear()
            on_end()

    async def _compute(self, job_id: str, stage: int) -> float | None:
        """Makes an exit; the seconds wasted, if it was stopped."""
        self.log.append(("run", job_id, stage))
        assert self._exits[job_id] == stage - 1, "a stage without the one before it"
        self.on_stage(job_id, stage)
        if job_id in self.crash_at:
            self.crash_at.discard(job_id)
            self._images.clear()
            raise ExecutorCrashedError("the executor died (exit code -9)")
        if job_id in self.fail_at:
            raise ExecutorCallError("MemoryError: no memory")
        elapsed_s = STAGE_S[stage - 1]
        await asyncio.sleep(0)
        if self.hangs:
            await self.killed.wait()
            self._images.clear()
            raise ExecutorCrashedError("the executor died (exit code -9)")
        while not (self.gate.is_set() or self._must_stop(stage)):
            await self._gate_or_limits()
        if self._must_stop(stage):
            self._move(elapsed_s / 2)
            return elapsed_s / 2
        self._move(elapsed_s)
        self._exits[job_id] = stage
        self._reports.append(exit_report(stage, self._now()))
        return None

    def _must_stop(self, stage: int) -> bool:
        return self._now() > self.limits.stop_at_s or stage not in self.limits.path

    def _now(self) -> float:
        return time.monotonic() if self.clock is None else self.clock.now

    async def _gate_or_limits(self, gate: asyncio.Event | None = None) -> None:
        self._limits_changed.clear()
        events = (gate or self.gate, self._limits_changed)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            left_s = self.limits.stop_at_s - self._now()
            timeout = left_s if self.clock is None and left_s < math.inf else None
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _move(self, elapsed_s: float) -> None:
        if self.clock is not None:
            self.clock.now += elapsed_s

    def prepare(self, model: str, size: tuple[int, int], sides: int | None) -> None:
        self.prepared.append((model, size))
        self.prepared_sides.append(sides)

    def set_limits(self, limits: RunLimits) -> None:
        if self.running.is_set():
            self.limits = limits
            self._limits_changed.set()

    def take_exits(self) -> list[ExitReport]:
        taken, self._reports = self._reports, []
        return taken

    async def render(self, job_id: str, options: RenderOptions) -> RenderedExit:
        exit_ = self._exits[job_id]
        self.log.append(("render", job_id, exit_))
        height, width = self._images[job_id].shape[:2]
        step = round(1 / options.scale)
        labels = np.full((-(-height // step), -(-width // step)), exit_, np.uint8)
        labels[0] = 0
        pose = self._models[job_id] == "pose"
        points = np.array([[1.5, 2.5, 0.25], [3, 4, 0.5], [5, 6, 1.0]], np.float32)
        return RenderedExit(
            exit=exit_,
            height=height,
            width=width,
            labels=None if pose else labels,
            keypoints=points if pose else None,
            confidence=labels * 10 if options.confidence else None,
            active=(labels > 2).astype(np.uint8) if options.active else None,
            heatmaps=np.ones((3, 4, 5), np.float16) if options.heatmaps and pose else None,
            elapsed_s=1e-4,
        )

    def forget(self, job_id: str) -> None:
        self.log.append(("forget", job_id, 0))
        self._images.pop(job_id, None)

    async def finish_frame(self, job_id: str) -> FinishedFrame:
        self.log.append(("finish", job_id, self._exits[job_id]))
        if job_id in self.crash_at:
            self.crash_at.discard(job_id)
            raise ExecutorCrashedError("the executor died (exit code -9)")
        if job_id in self.fail_at:
            raise ExecutorCallError("MemoryError: no memory")
        return self.reuse

    async def check_frame(self, stream: str) -> bool:
        self.log.append(("check", stream, 0))
        self.limits = CHECK
        self.running.set()
        try:
            while not self.may_check.is_set() and self.limits is CHECK:
                await self._gate_or_limits(self.may_check)
            return self.limits is CHECK
        finally:
            self.running.clear()

    def forget_stream(self, stream: str) -> None:
        self.log.append(("forget stream", stream, 0))

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class EventRecorder:
    """A client's side of a request: keeps what it is told."""

    events: list[RequestEvent] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, event: RequestEvent) -> None:
        self.events.append(event)
        if isinstance(event, RequestEnded):
            self.ended.set()

    @property
    def exits(self) -> list[int]:
        """Exits that were shown before the end."""
        return [e.rendered.exit for e in self.events if isinstance(e, ExitRendered)]

    @property
    def end(self) -> RequestEnded:
        """The one end."""
        (end,) = (e for e in self.events if isinstance(e, RequestEnded))
        return end
