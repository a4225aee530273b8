"""The real executor: a process of its own, watched and started again when it dies.

Why a process and not a thread. A fault in native code or the kernel's out-of-memory killer ends a
process, not a thread; with the networks in a child it takes down the requests that are in it, and
not the sockets. The event loop keeps an interpreter lock of its own, so that a ping is answered
while the network computes. And a computation that hangs can be killed, which no thread can.

What that costs is kept small by shared memory (`control`): arrays are copied once each way, and a
run of several stages takes two wake-ups, one of each process, as its exits are noted in the control
block. Messages through the pipe are small, and the event loop reads and writes them by itself,
without a thread in between.
"""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from anytime_server.core.decisions import STOP, ExitReport, RunLimits
from anytime_server.errors import ExecutorCallError, ExecutorCrashedError, ExecutorStartError
from anytime_server.executor.base import (
    OnExit,
    RenderedExit,
    RenderOptions,
    RunCommand,
    RunEnd,
    ServedModel,
)
from anytime_server.executor.control import SharedMemory
from anytime_server.executor.messages import (
    Command,
    ExitMade,
    Fault,
    Forget,
    Prepare,
    Render,
    Reply,
    Started,
    StartRun,
    WorkerSettings,
)

logger = logging.getLogger(__name__)

_CLOSE_S: Final = 2.0
"""How long a child has to end by itself when its pipe is closed."""

_FORGET_S: Final = 0.002
"""From a job's end until the child hears of it, so that the answer goes first."""

Target = Callable[[Connection, SharedMemory, WorkerSettings], None]


def work(pipe: Connection, memory: SharedMemory, settings: WorkerSettings) -> None:
    """What the child runs; it alone imports the networks."""
    from anytime_server.executor import worker  # noqa: PLC0415

    worker.main(pipe, memory, settings)


@dataclass(slots=True)
class _Child:
    """A running process and this side of its pipe."""

    process: BaseProcess
    pipe: Connection

    def end(self) -> int | None:
        """Closes the pipe, and kills what does not end by itself; returns the exit code. Blocks."""
        self.pipe.close()
        self.process.join(_CLOSE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class ProcessExecutor:
    """See the module.

    Args:
        settings: for the child.
        max_pixels: the largest image of a run, px.
        hang_s: a run that ignores a stop for so long is killed with the process.
        target: what the child runs; tests put something that crashes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        max_pixels: int,
        hang_s: float = 10.0,
        target: Target = work,
    ) -> None:
        self._settings = settings
        self._max_pixels = max_pixels
        self._hang_s = hang_s
        self._target = target
        self._memory: SharedMemory | None = None
        self._child: _Child | None = None
        self._runs = 0
        self._is_running = False
        self._exits_taken = 0
        self._forgotten: list[str] = []
        self._hang: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child, or None while there is none."""
        return None if self._child is None else self._child.process.pid

    @property
    def engine_bytes(self) -> int:
        """See `Executor.engine_bytes`."""
        return 0 if self._memory is None else int(self._memory.control.engine_bytes[0])

    async def start(self) -> tuple[ServedModel, ...]:
        """See `Executor.start`."""
        await self._end()
        if self._closed:
            raise ExecutorStartError("the server is closed")
        self._child = await asyncio.to_thread(self._spawn)
        try:
            reply = await self._receive(self._child)
        except ExecutorCrashedError as error:
            raise ExecutorStartError(f"while it loaded the models: {error}") from error
        match reply:
            case Started(models=models):
                names = ", ".join(f"{model.info.name} ({model.engine})" for model in models)
                logger.info("executor %s is ready: %s", self.pid, names)
                return models
            case Fault(detail=detail):
                raise ExecutorStartError(detail)
            case _:
                raise _unexpected(reply)

    async def run(self, command: RunCommand, on_exit: OnExit) -> RunEnd:
        """See `Executor.run`."""
        child, memory = self._alive()
        self._tell_forgotten()  # this may be the next job of the same id
        self._runs += 1
        image = None if command.image is None else memory.write_image(command.image)
        memory.control.begin(self._runs, command.limits)
        self._exits_taken, self._is_running = 0, True
        start = StartRun(
            self._runs,
            command.job_id,
            command.model,
            command.stage,
            image,
            command.size,
            command.render,
            command.limits.last_stage,
            command.each_exit,
            command.risk,
            command.monotone,
        )
        try:
            self._watch(command.limits)
            await self._send(child, start)
            while True:
                match await self._receive(child):
                    case ExitMade(rendered=rendered):
                        on_exit(None if rendered is None else memory.read_rendered(rendered))
                    case RunEnd(rendered=None) as end:
                        return end
                    case RunEnd(wasted_s, RenderedExit() as rendered):
                        return RunEnd(wasted_s, memory.read_rendered(rendered))
                    case reply:
                        raise _unexpected(reply)
        finally:
            self._is_running = False
            self._watch(STOP)

    def set_limits(self, limits: RunLimits) -> None:
        """See `Executor.set_limits`."""
        if self._memory is not None and self._is_running:
            self._memory.control.set_limits(limits)
            self._watch(limits)

    def take_exits(self) -> list[ExitReport]:
        """See `Executor.take_exits`."""
        if self._memory is None:
            return []
        found = self._memory.control.exits_after(self._exits_taken)
        self._exits_taken += len(found)
        return found

    async def render(self, job_id: str, options: RenderOptions) -> RenderedExit:
        """See `Executor.render`."""
        child, memory = self._alive()
        await self._send(child, Render(job_id, options))
        reply = await self._receive(child)
        if isinstance(reply, RenderedExit):
            return memory.read_rendered(reply)
        raise _unexpected(reply)

    def prepare(self, model: str, size: tuple[int, int]) -> None:
        """See `Executor.prepare`."""
        try:
            if self._child is not None:
                self._child.pipe.send(Prepare(model, size))
        except OSError as error:
            logger.warning("the executor does not listen: %s", error)

    def forget(self, job_id: str) -> None:
        """See `Executor.forget`."""
        if not self._forgotten:
            asyncio.get_running_loop().call_later(_FORGET_S, self._tell_forgotten)
        self._forgotten.append(job_id)

    async def close(self) -> None:
        """See `Executor.close`."""
        self._closed = True
        self.set_limits(STOP)
        await self._end()

    def _spawn(self) -> _Child:
        """Starts the process. Blocks."""
        self._memory = self._memory or SharedMemory.allocate(self._max_pixels)
        self._memory.control.taken[0] = 0
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._target,
            args=(theirs, self._memory, self._settings),
            name="anytime-executor",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that the child's end is the only one, and its death an end of file
        return _Child(process, ours)

    def _alive(self) -> tuple[_Child, SharedMemory]:
        if self._child is None or self._memory is None:
            raise ExecutorCrashedError("the executor is not running")
        return self._child, self._memory

    def _watch(self, limits: RunLimits) -> None:
        """Sets when the process is killed if the run has not ended by then."""
        if self._hang is not None:
            self._hang.cancel()
            self._hang = None
        stop_at_s = limits.stop_at_s if limits.path else time.monotonic()
        if self._is_running and stop_at_s < math.inf:
            wait_s = stop_at_s - time.monotonic() + self._hang_s
            self._hang = asyncio.get_running_loop().call_later(wait_s, self._kill)

    def _kill(self) -> None:
        """A run has ignored a stop: the process goes, and its run ends with a crash."""
        if self._child is not None:
            logger.error("the executor ignored a stop for %g s and is killed", self._hang_s)
            self._child.process.kill()

    def _tell_forgotten(self) -> None:
        forgotten, self._forgotten = self._forgotten, []
        try:
            if self._child is not None:
                for job_id in forgotten:
                    self._child.pipe.send(Forget(job_id))
        except OSError as error:
            logger.warning("the executor does not listen: %s", error)

    async def _send(self, child: _Child, command: Command) -> None:
        try:
            child.pipe.send(command)
        except OSError:
            raise await self._crashed() from None

    async def _receive(self, child: _Child) -> Reply:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        descriptor = child.pipe.fileno()
        loop.add_reader(descriptor, _set_result, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        try:
            reply: Reply = child.pipe.recv()
        except (EOFError, OSError):
            raise await self._crashed() from None
        return reply

    async def _crashed(self) -> ExecutorCrashedError:
        code = await self._end()
        return ExecutorCrashedError(f"the executor died (exit code {code}), and what was in it")

    async def _end(self) -> int | None:
        child, self._child = self._child, None
        return None if child is None else await asyncio.to_thread(child.end)


def _set_result(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _unexpected(reply: Reply) -> ExecutorCallError:
    """The child's own words, or that it said something else than was asked."""
    if isinstance(reply, Fault):
        return ExecutorCallError(reply.detail, reply.code)
    return ExecutorCallError(f"it answered with a {type(reply).__name__}")
