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
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from anytime_server.core.decisions import CHECK, STOP, ExitReport, RunLimits
from anytime_server.errors import ExecutorCallError, ExecutorCrashedError, ExecutorStartError
from anytime_server.executor.base import (
    FinishedFrame,
    OnExit,
    RenderedExit,
    RenderOptions,
    RunCommand,
    RunEnd,
    ServedModel,
)
from anytime_server.executor.control import SharedMemory
from anytime_server.executor.cores import auto_executors, bind, share_cores
from anytime_server.executor.messages import (
    Beat,
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
from anytime_server.process_memory import resident_bytes
from anytime_server.settings import Settings

logger = logging.getLogger(__name__)

_CLOSE_S: Final = 2.0
"""How long a child has to end by itself when its pipe is closed."""

_PING_S: Final = 5.0
"""An idle child is asked for a sign of life after so long without one."""

_BEAT_S: Final = 0.5
"""Between two signs of life of a child that loads."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are the server's alone."""

_FORGET_S: Final = 0.002
"""From a job's end until the child hears of it, so that the answer goes first."""

Target = Callable[[Connection, SharedMemory, WorkerSettings], None]


def work(pipe: Connection, memory: SharedMemory, settings: WorkerSettings) -> None:
    """What the child runs; it alone imports the networks."""
    bind(settings.cpus)  # before the libraries are loaded, which ask how many CPUs there are
    loaded = threading.Event()
    threading.Thread(target=_beat, args=(memory, loaded), daemon=True).start()
    from anytime_server.executor import worker  # noqa: PLC0415

    worker.main(pipe, memory, settings, loaded.set)


def _beat(memory: SharedMemory, loaded: threading.Event) -> None:
    """Shows signs of life until the models are loaded."""
    while not loaded.wait(_BEAT_S):
        memory.control.beat[0] = time.monotonic()


class _Child:
    """A running process and this side of its pipe, which is read as soon as there is something.

    Args:
        process: started.
        pipe: to it.
        on_failure: called on the event loop when it ends while no call awaits a reply.

    Attributes:
        process: the same.
        pid: of the process.
        on_reply: called on the event loop when a reply has come that is awaited.
    """

    def __init__(
        self, process: BaseProcess, pipe: Connection, on_failure: Callable[[], None]
    ) -> None:
        self.process = process
        self.pid = process.pid or 0
        self._pipe = pipe
        self.on_reply: Callable[[], None] = lambda: None
        self._on_failure = on_failure
        self._replies: deque[Reply] = deque()
        self._waiter: asyncio.Future[Reply] | None = None
        self._has_ended = False

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for its reply."""
        return self._waiter is not None

    def listen(self) -> None:
        """Begins to read what it sends."""
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)
        os.set_blocking(self._pipe.fileno(), True)  # uvloop has made it non-blocking

    def send(self, command: Command) -> None:
        """Sends a command.

        Raises:
            OSError: it has ended.
        """
        self._pipe.send(command)

    async def receive(self) -> Reply:
        """Its next reply.

        Raises:
            EOFError: it has ended.
        """
        if self._replies:
            return self._replies.popleft()
        if self._has_ended:
            raise EOFError
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _read(self) -> None:
        waiter = self._waiter if self._waiter is not None and not self._waiter.done() else None
        try:
            reply: Reply = self._pipe.recv()
        except (EOFError, OSError):
            self.ignore()
            self._has_ended = True
            if waiter is not None:
                waiter.set_exception(EOFError())
            elif self._waiter is None:
                self._on_failure()
            return
        if waiter is not None and not self._replies:
            waiter.set_result(reply)
            self.on_reply()
        else:
            self._replies.append(reply)

    def ignore(self) -> None:
        """Reads no more of what it sends."""
        if not self._pipe.closed:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    def end(self) -> int | None:
        """Closes the pipe, and kills what does not end by itself; returns the exit code. Blocks."""
        self._pipe.close()
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
        hang_s: a process that shows no sign of life for so long while it has something to do is
            killed.
        loading_s: the same while it loads, libraries above all.
        target: what the child runs; tests put something that crashes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        max_pixels: int,
        hang_s: float = 10.0,
        loading_s: float = 60.0,
        target: Target = work,
    ) -> None:
        self._settings = settings
        self._max_pixels = max_pixels
        self._hang_s = hang_s
        self._loading_s = loading_s
        self._target = target
        self._memory: SharedMemory | None = None
        self._child: _Child | None = None
        self._runs = 0
        self._is_running = False
        self._exits_taken = 0
        self._forgotten: list[str] = []
        self._is_loading = False
        self._asked_s = 0.0  # when the oldest command was sent that it may not have taken up
        self._watched_s = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child, or None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def engine_bytes(self) -> int:
        """See `Executor.engine_bytes`."""
        return 0 if self._memory is None else int(self._memory.control.engine_bytes[0])

    @property
    def resident_bytes(self) -> int:
        """See `Executor.resident_bytes`; may be asked in any thread."""
        child = self._child
        return 0 if child is None else resident_bytes(child.pid)

    async def start(self, on_failure: Callable[[], None]) -> tuple[ServedModel, ...]:
        """See `Executor.start`."""
        code = await self._end()
        if code is not None:
            logger.error("the executor ended with exit code %d", code)
        if self._closed:
            raise ExecutorStartError("the server is closed")
        self._is_loading = True
        try:
            self._child = child = await asyncio.to_thread(self._spawn, on_failure)
            child.listen()
            self._watch_over(child)
            reply = await self._receive(child)
        except ExecutorCrashedError as error:
            raise ExecutorStartError(f"while it loaded the models: {error}") from error
        except OSError as error:
            raise ExecutorStartError(
                f"the system gives no process, or not the memory that is shared with it: {error}"
            ) from error
        finally:
            self._is_loading = False
        match reply:
            case Started(models=models):
                names = ", ".join(f"{model.info.name} ({model.engine})" for model in models)
                logger.info("executor %s is ready: %s", self.pid, names)
                return models
            case Fault(detail=detail):
                raise ExecutorStartError(detail)
            case _:
                raise _unexpected(reply)

    def run(
        self, command: RunCommand, on_exit: OnExit, on_end: Callable[[], None]
    ) -> Coroutine[Any, Any, RunEnd]:
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
            command.memory,
        )
        child.on_reply = on_end
        return self._follow_run(child, memory, self._tell(start), on_exit, on_end)

    async def _follow_run(
        self,
        child: _Child,
        memory: SharedMemory,
        is_told: bool,
        on_exit: OnExit,
        on_end: Callable[[], None],
    ) -> RunEnd:
        try:
            if not is_told:
                raise await self._crashed()
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
            self._is_running, child.on_reply = False, lambda: None
            on_end()

    def set_limits(self, limits: RunLimits) -> None:
        """See `Executor.set_limits`."""
        if self._memory is not None and self._is_running:
            self._memory.control.set_limits(limits)

    def take_exits(self) -> list[ExitReport]:
        """See `Executor.take_exits`."""
        if self._memory is None:
            return []
        found = self._memory.control.exits_after(self._exits_taken)
        self._exits_taken += len(found)
        return found

    async def render(self, job_id: str, options: RenderOptions) -> RenderedExit:
        """See `Executor.render`."""
        _, memory = self._alive()
        reply = await self._ask(Render(job_id, options))
        if isinstance(reply, RenderedExit):
            return memory.read_rendered(reply)
        raise _unexpected(reply)

    def prepare(self, model: str, size: tuple[int, int], sides: int | None) -> None:
        """See `Executor.prepare`."""
        self._tell(Prepare(model, size, sides))

    def forget(self, job_id: str) -> None:
        """See `Executor.forget`."""
        if not self._forgotten:
            asyncio.get_running_loop().call_later(_FORGET_S, self._tell_forgotten)
        self._forgotten.append(job_id)

    async def finish_frame(self, job_id: str) -> FinishedFrame:
        """See `Executor.finish_frame`."""
        reply = await self._ask(FinishFrame(job_id))
        if isinstance(reply, FinishedFrame):
            return reply
        raise _unexpected(reply)

    async def check_frame(self, stream: str) -> bool:
        """See `Executor.check_frame`."""
        _, memory = self._alive()
        self._runs += 1
        memory.control.begin(self._runs, CHECK)
        self._exits_taken, self._is_running = 0, True
        try:
            reply = await self._ask(CheckFrame(self._runs, stream))
        finally:
            self._is_running = False
        if isinstance(reply, Checked):
            return reply.is_done
        raise _unexpected(reply)

    def forget_stream(self, stream: str) -> None:
        """See `Executor.forget_stream`."""
        self._tell(ForgetStream(stream))

    async def close(self) -> None:
        """See `Executor.close`."""
        self._closed = True
        self.set_limits(STOP)
        await self._end()

    def _spawn(self, on_failure: Callable[[], None]) -> _Child:
        """Starts the process. Blocks."""
        self._memory = self._memory or SharedMemory.allocate(self._max_pixels)
        self._memory.control.taken[0] = 0
        self._memory.control.beat[0] = self._asked_s = self._watched_s = time.monotonic()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._target,
            args=(theirs, self._memory, self._settings),
            name="anytime-executor",
            daemon=True,
        )
        # The process inherits what this thread blocks: it ends when the server wants it to, and not
        # by a signal that a terminal or a service manager sends to both.
        resource_tracker.ensure_running()  # whose own start unblocks signals
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        theirs.close()  # so that the child's end is the only one, and its death an end of file
        return _Child(process, ours, on_failure)

    def _alive(self) -> tuple[_Child, SharedMemory]:
        if self._child is None or self._memory is None:
            raise ExecutorCrashedError("the executor is not running")
        return self._child, self._memory

    def _watch_over(self, child: _Child) -> None:
        """Kills a child that has something to do and shows no sign of life; asks an idle one."""
        if child is not self._child or self._memory is None:
            return
        now, interval_s = time.monotonic(), min(self._hang_s / 4, 1.0)
        if now > self._watched_s + 2 * interval_s + 1.0:
            self._asked_s = now  # this process, or the whole machine, has slept
        self._watched_s = now
        beat_s = float(self._memory.control.beat[0])
        silent_s = now - max(beat_s, self._asked_s)
        patience_s = self._loading_s if self._is_loading else self._hang_s
        if silent_s > patience_s and (child.is_awaited or beat_s < self._asked_s):
            logger.error("the executor shows no sign of life for %.3g s and is killed", silent_s)
            child.process.kill()
            return
        if silent_s > _PING_S and not child.is_awaited:
            self._tell(Beat())
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(interval_s, self._watch_over, child)

    def _note_asked(self) -> None:
        """Something has been sent."""
        if self._memory is not None and self._memory.control.beat[0] >= self._asked_s:
            self._asked_s = time.monotonic()

    def _tell_forgotten(self) -> None:
        forgotten, self._forgotten = self._forgotten, []
        for job_id in forgotten:
            self._tell(Forget(job_id))

    def _tell(self, command: Command) -> bool:
        """Sends a command, if there is somebody to hear it."""
        try:
            if self._child is not None:
                self._child.send(command)
                self._note_asked()
                return True
        except OSError as error:
            logger.warning("the executor does not listen: %s", error)
        return False

    async def _ask(self, command: Command) -> Reply:
        child, _ = self._alive()
        if not self._tell(command):
            raise await self._crashed()
        return await self._receive(child)

    async def _receive(self, child: _Child) -> Reply:
        try:
            return await child.receive()
        except EOFError:
            raise await self._crashed() from None

    async def _crashed(self) -> ExecutorCrashedError:
        code = await self._end()
        return ExecutorCrashedError(f"the executor died (exit code {code}), and what was in it")

    async def _end(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        if self._watch is not None:
            self._watch.cancel()
        child.ignore()
        return await asyncio.to_thread(child.end)


def _unexpected(reply: Reply) -> ExecutorCallError:
    """The child's own words, or that it said something else than was asked."""
    if isinstance(reply, Fault):
        return ExecutorCallError(reply.detail, reply.code)
    return ExecutorCallError(f"it answered with a {type(reply).__name__}")


def process_executors(settings: Settings) -> list[ProcessExecutor]:
    """The executors that an operator wants, each with its share of cores and memory."""
    count = _count(settings)
    return [
        ProcessExecutor(
            WorkerSettings(
                weights=settings.weights,
                models=settings.model_names,
                engine=settings.engine,
                precision=settings.precision,
                device=settings.device,
                threads=cores.threads,
                cpus=cores.cpus,
                profile_size=settings.profile_height_width,
                engine_memory_bytes=settings.engine_memory_mb * 2**20 // count,
                log_level=settings.log_level,
                log_json=settings.log_json,
            ),
            max_pixels=settings.max_computed_pixels,
            hang_s=settings.hang_s,
        )
        for cores in share_cores(count, settings.threads)
    ]


def _count(settings: Settings) -> int:
    """How many executors are wanted."""
    if settings.executors != "auto":
        return settings.executors
    # Another device is one, however many processes there are.
    most = auto_executors(settings.threads) if settings.device == "cpu" else 1
    return min(most, settings.max_requests)
