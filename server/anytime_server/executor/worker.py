"""The executor's process: holds the networks and runs what the server asks, one thing at a time.

With `loading` the only module of the server that imports `anytime_model`. Between two kernels it
checks the control block, and stops when the block says so or its time is up. Budgets, deadlines and
queues are the server's.

The process begins with the signals blocked that ask to end (the server decides when), and ends when
the pipe to the server is closed, whoever closed it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import torch

from anytime_model.engines.base import ExitResult, Keypoints, SegmentationMap
from anytime_model.engines.ladder import LadderRun, RungResult
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.errors import AnytimeModelError, InputError, NoRoomError
from anytime_model.kernels.cpus import usable_cpus
from anytime_protocol.enums import ErrorCode
from anytime_server import logs
from anytime_server.core.decisions import ExitReport
from anytime_server.executor.base import FinishedFrame, RenderedExit, RenderOptions, RunEnd
from anytime_server.executor.control import ControlBlock, SharedMemory
from anytime_server.executor.loading import LoadedModel, load, profile
from anytime_server.executor.messages import (
    Checked,
    CheckFrame,
    Command,
    ExitMade,
    Fault,
    FinishFrame,
    Forget,
    ForgetStream,
    Prepare,
    Render,
    Reply,
    Started,
    StartRun,
    WorkerSettings,
)
from anytime_server.executor.stream_memories import StreamMemories, frame_memory
from anytime_server.images import Image
from anytime_server.process_memory import exclude_from_collection, keep_freed_memory

logger = logging.getLogger(__name__)


class _StoppedError(Exception):
    """Raised out of `pause`: the only way out of the middle of a stage."""


@dataclass(slots=True)
class _Job:
    """A job's state in this process.

    Attributes:
        model: its model.
        run: its image on its way up the ladder.
        risk: of the certificate whose masks it has, 0 without masks; None for the model's own.
        made: numbers of the exits made.
        best: the last exit that is better than those before it.
        rendered: number of the last exit that was rendered.
        stream: whose memory its frame was begun from; None of an image by itself.
    """

    model: LoadedModel
    run: LadderRun
    risk: float | None
    made: tuple[int, ...] = ()
    best: RungResult | None = None
    rendered: int = 0
    stream: str | None = None


def main(
    pipe: Connection,
    memory: SharedMemory,
    settings: WorkerSettings,
    on_loaded: Callable[[], None],
) -> None:
    """Runs the process to its end.

    Args:
        pipe: to the server; the first message is `Started` or a `Fault`.
        memory: shared with the server.
        settings: see there.
        on_loaded: called when the models are loaded.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    keep_freed_memory()
    if settings.threads:
        os.environ["ANYTIME_THREADS"] = str(settings.threads)  # read when the kernels are loaded
    memory_budget = MemoryBudget(settings.engine_memory_bytes)
    try:
        models = load(settings, memory_budget)
        torch.set_num_threads(torch_threads(models, settings.threads))
        served = tuple(profile(model, settings.profile_size) for model in models.values())
    except (AnytimeModelError, OSError, MemoryError) as error:
        with suppress(BrokenPipeError):  # the server was stopped meanwhile
            pipe.send(Fault(str(error) or "memory has run out"))
        return
    exclude_from_collection()
    on_loaded()
    with suppress(BrokenPipeError):
        pipe.send(Started(served))
        streams = StreamMemories(frame_memory, settings.engine_memory_bytes // 4)
        Worker(models, memory, pipe, memory_budget, streams).serve()


class Worker:
    """Answers commands.

    Args:
        models: by name.
        memory: shared with the server.
        pipe: to the server.
        memory_budget: of the models' engines.
        streams: what is kept of streams.
    """

    def __init__(
        self,
        models: dict[str, LoadedModel],
        memory: SharedMemory,
        pipe: Connection,
        memory_budget: MemoryBudget,
        streams: StreamMemories,
    ) -> None:
        self._models = models
        self._streams = streams
        self._memory_budget = memory_budget
        self._memory = memory
        self._control: ControlBlock = memory.control
        self._pipe = pipe
        self._jobs: dict[str, _Job] = {}
        self._renderings = 0

    def serve(self) -> None:
        """Answers until the other side has closed the pipe."""
        try:
            while True:
                command = self._pipe.recv()
                self._control.beat[0] = time.monotonic()
                reply = self._answer(command)
                self._control.beat[0] = time.monotonic()
                held = self._memory_budget.used_bytes + self._streams.bytes
                self._control.engine_bytes[0] = held
                if reply is not None:
                    self._pipe.send(reply)
        except (EOFError, ConnectionError):
            return

    def _answer(self, command: Command) -> Reply | None:
        """Does what is asked; a fault of one job is reported, not raised."""
        fault: Fault | None = None
        try:
            match command:
                case StartRun():
                    return self._run(command)
                case Render(job_id=job_id, options=options):
                    return self._render(self._jobs[job_id], options)
                case Prepare(model=model, size=size, sides=sides):
                    with suppress(InputError):  # the run will meet it again, and deal with it
                        self._models[model].engine.prepare(size, sides=sides)
                case Forget(job_id=job_id):
                    job = self._jobs.pop(job_id, None)
                    if job is not None:
                        self._finish(job)
                case FinishFrame(job_id=job_id):
                    return self._finish(self._jobs[job_id])
                case CheckFrame():
                    return self._check(command)
                case ForgetStream(stream=stream):
                    self._streams.forget(stream)
        except ConnectionError:
            raise
        except (InputError, MemoryError) as error:
            logger.warning("an image is too large for this server's memory: %s", error)
            fault = Fault(str(error) or "memory has run out", ErrorCode.TOO_MANY_PIXELS)
        except Exception as error:
            # Whatever one job meets, the others go on.
            logger.exception("command %s failed", type(command).__name__)
            fault = Fault(f"{type(error).__name__}: {error}")
        return fault if isinstance(command, StartRun | Render | FinishFrame | CheckFrame) else None

    def _run(self, command: StartRun) -> RunEnd:
        """Computes stages until the control block, or the network, has no more for this run."""
        if command.image is not None:
            self._begin(command, self._memory.read_image(command.image))
        job, control, stage = self._jobs[command.job_id], self._control, command.stage
        self._jobs[command.job_id] = self._jobs.pop(command.job_id)  # last of them to be released
        while True:
            began_s = time.monotonic()
            try:
                result = self._compute(job, stage, command.run)
            except _StoppedError:
                return self._stopped(job, command, time.monotonic() - began_s)
            ended_s = time.monotonic()
            job.made = (*job.made, stage)
            report = _report(job, result, ended_s - began_s, ended_s)
            if report.improves:
                job.best = result
            control.add_exit(report)
            next_stage = control.stage_after(stage)
            if next_stage is None:
                wanted = command.each_exit or stage >= command.render_from
                return RunEnd(0.0, self._render_for(job, command) if wanted else None)
            if command.each_exit:
                shown = self._render_for(job, command) if report.improves else None
                self._pipe.send(ExitMade(shown))
            elif control.notify[0]:
                self._pipe.send(ExitMade(None))
            stage = next_stage

    def _begin(self, command: StartRun, image: Image) -> None:
        """Takes an image in."""
        model, how = self._models[command.model], command.memory
        if how is None:
            run = model.engine.begin(image, size=command.size, monotone=command.monotone)
        else:
            run = self._streams.begin(
                how, model, image, size=command.size, monotone=command.monotone
            )
        stream = None if how is None else how.stream
        self._jobs[command.job_id] = _Job(model, run, command.risk, stream=stream)

    def _finish(self, job: _Job) -> FinishedFrame:
        """A job is over: its stream, if it has one, keeps what it has found."""
        if job.stream is None:
            return FinishedFrame()
        stream, job.stream = job.stream, None
        return self._streams.finish(stream, job.best, job.made)

    def _check(self, command: CheckFrame) -> Checked:
        """Computes a stream's last frame once more, alone, until the server wants something."""

        def advance(model: LoadedModel, run: LadderRun, stage: int) -> RungResult:
            return self._compute(_Job(model, run, None), stage, command.run)

        try:
            self._streams.check(command.stream, advance)
        except _StoppedError:
            return Checked(is_done=False)
        return Checked(is_done=True)

    def _compute(self, job: _Job, stage: int, run: int) -> RungResult:
        """One stage."""

        def pause() -> None:
            if self._control.must_stop(run, stage, time.monotonic()):
                raise _StoppedError

        pause()
        criterion = job.model.criterion(stage, job.risk)
        others = [other for other in self._jobs.values() if other is not job]
        while True:
            try:
                return job.run.advance(criterion, pause, rung=stage)
            except NoRoomError:
                if not others:
                    raise
                others.pop(0).run.release()  # computes its exits again when its turn comes

    def _stopped(self, job: _Job, command: StartRun, wasted_s: float) -> RunEnd:
        """The end of a run in the middle of a stage.

        If its time was up, the map before is rendered at once, as it will be sent.
        """
        in_force = self._control.path[0] > 0
        unseen = job.best is not None and job.rendered < job.best.exit
        rendered = self._render_for(job, command) if in_force and unseen else None
        return RunEnd(wasted_s, rendered)

    def _render_for(self, job: _Job, command: StartRun) -> RenderedExit | None:
        """The last exit, if it is wanted and there is a place for it."""
        if command.render is None or not self._memory.has_place(self._renderings):
            return None
        return self._render(job, command.render)

    def _render(self, job: _Job, options: RenderOptions) -> RenderedExit:
        if job.best is None:
            raise ValueError("no exit has been made yet")
        rendered = self._memory.write_rendered(
            render(job.model, job.best, options), self._renderings
        )
        self._renderings += 1
        job.rendered = job.best.exit
        return rendered


def _report(job: _Job, result: ExitResult, elapsed_s: float, ended_s: float) -> ExitReport:
    """What the scheduler and the client are told about the last exit made."""
    inside = result.active[result.inside]
    return ExitReport(
        exit=result.exit,
        confidence=job.model.card.task.mean_confidence(result),
        active_share=np.count_nonzero(result.active) / result.active.size,
        confident_share=1.0 - np.count_nonzero(inside) / inside.size,
        gmacs=result.macs / 1e9,
        elapsed_s=elapsed_s,
        ended_s=ended_s,
        improves=job.model.improves(job.made),
    )


def render(model: LoadedModel, result: RungResult, options: RenderOptions) -> RenderedExit:
    """An exit's maps at the size that was asked for.

    Args:
        model: that made it.
        result: the exit.
        options: which maps, at which scale.
    """
    began = time.perf_counter()
    height, width = result.source_size
    rows, columns = result.inside
    step = round(1 / options.scale)
    keypoints = labels = None
    if step == result.map_stride and result.source_size == result.image_size:
        labels = model.card.task.labels_on_map(result)
    if labels is None:
        match model.engine.decode(result):
            case SegmentationMap(labels=decoded):
                labels = np.ascontiguousarray(decoded[::step, ::step])
            case Keypoints(points=points):
                keypoints = points.copy()
                keypoints[:, 2] = keypoints[:, 2].clip(0.0, 1.0)
    confidence = active = heatmaps = None
    if options.confidence:
        scaled = (result.confidence[rows, columns].clip(0.0, 1.0) * 255.0).round()
        confidence = result.at_source(scaled.astype(np.uint8), step)
    if options.active:
        active = result.at_source(result.active[rows, columns].view(np.uint8), step)
    if options.heatmaps and keypoints is not None:
        heatmaps = result.logits[:, rows, columns].astype(np.float16)
    return RenderedExit(
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


def torch_threads(models: Mapping[str, LoadedModel], threads: int) -> int:
    """How many threads PyTorch is to use; `threads` is the operator's choice, 0 for all cores.

    One where it only does the small steps between the kernels of another engine: its threads spin
    for milliseconds after each step, on the cores that the kernels and the event loop need.
    """
    if any(model.engine.name.startswith("torch") for model in models.values()):
        return threads or usable_cpus()
    return 1
