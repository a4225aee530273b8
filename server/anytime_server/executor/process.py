"""The real executor: a process of its own, watched and started again when it dies.

Decides how the server talks to that process. Knows neither the network nor the queue.

Why a process and not a thread. A fault in native code or the kernel's out-of-memory killer ends a
process, not a thread; with the networks in a child it takes down the requests that are in it, and
not the sockets. The event loop keeps an interpreter lock of its own, so that a ping is answered
while the network computes. And a computation that hangs can be killed, which no thread can.

What that costs. Arrays lie in shared memory, so that one copy each way is left (0.1 ms at 480x360).
Commands and replies are small and are written and read by the event loop itself: a stage costs two
wake-ups, the child's and the loop's, as it would with a thread. (With a thread of this process in
between there were four, and on a machine with twice as many busy processes as cores a stage took
6.7 ms longer than its computation.) While a request is alone, the child does not even wait for
those two: it begins the next stage before it is asked for, or is asked for several at once, and
notes the exits on the way. A stop does not go through the pipe: it is one shared word that the
child reads between two modules of the network.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from anytime_server.executor.base import (
    ExecutorCallError,
    ExecutorCrashedError,
    ExecutorStartError,
    Image,
    Picture,
    ServedModel,
    StageDone,
    StageStopped,
    View,
)
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
from anytime_server.executor.control import MOST_EXITS, Shared

logger = logging.getLogger(__name__)

_GONE_S: Final = 2.0
"""How long a child has to end by itself when its pipe is closed."""

_FORGET_S: Final = 0.002
"""From a job's end until the child hears of it: hearing takes 0.2 ms, and the answer goes first."""

Target = Callable[[Connection, Shared, WorkerSettings], None]


def work(pipe: Connection, shared: Shared, settings: WorkerSettings) -> None:
    """What the child runs; it alone imports the networks."""
    from anytime_server.executor import worker  # noqa: PLC0415

    worker.main(pipe, shared, settings)


@dataclass(slots=True)
class _Child:
    """A running process and this side of its pipe."""

    process: BaseProcess
    pipe: Connection

    def end(self) -> int | None:
        """Closes the pipe, and kills what does not end by itself; returns the exit code. Blocks."""
        self.pipe.close()
        self.process.join(_GONE_S)
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
        max_pixels: the largest image that `begin` may be given, px.
        hang_s: a stage that ignores a stop for so long is killed with the process.
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
        self._shared: Shared | None = None
        self._child: _Child | None = None
        self._runs = 0
        self._running = 0
        self._told = 0
        self._forgotten: list[str] = []
        self._hang: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child, or None while there is none."""
        return None if self._child is None else self._child.process.pid

    async def start(self) -> tuple[ServedModel, ...]:
        """See `Executor.start`."""
        await self._end()
        if self._closed:
            raise ExecutorStartError("the server is closed")
        self._child = await asyncio.to_thread(self._spawn)
        try:
            reply: object = await self._receive(self._child)
        except ExecutorCrashedError as error:
            raise ExecutorStartError(f"while it loaded the models: {error}") from error
        match reply:
            case tuple():
                served: tuple[ServedModel, ...] = reply
            case Fault(detail=detail):
                raise ExecutorStartError(detail)
            case _:
                raise _unexpected(reply)
        names = ", ".join(f"{model.info.name} ({model.engine})" for model in served)
        logger.info("executor %s is ready: %s", self.pid, names)
        return served

    def begin(self, job_id: str, model: str, image: Image) -> None:
        """See `Executor.begin`. A child that is gone is noticed by the call that follows."""
        self._tell_forgotten()  # it may be the next of the same id
        if self._shared is not None:
            self._tell(Begin(job_id, model, self._shared.write_image(image)))

    async def run(
        self,
        job_id: str,
        stage: int,
        view: View | None = None,
        *,
        through: int | None = None,
        go_ahead: bool = False,
    ) -> StageDone | StageStopped:
        """See `Executor.run`."""
        self._runs += 1
        self._running = self._runs
        self._told = 0
        if self._shared is not None:
            self._shared.clear_exits()
        last = stage if through is None else min(through, stage + MOST_EXITS)
        try:
            reply = await self._ask(RunStage(job_id, stage, last, self._runs, view, go_ahead))
        finally:
            self._running = 0
            if self._hang is not None:
                self._hang.cancel()
                self._hang = None
        match reply:
            case StageDone(picture=Picture() as picture):
                return reply._replace(picture=self._read(picture))
            case StageDone() | StageStopped():
                return reply
            case _:
                raise _unexpected(reply)

    def made(self) -> tuple[StageDone, ...]:
        """See `Executor.made`."""
        if self._shared is None:
            return ()
        found = self._shared.read_exits(self._told)
        self._told += len(found)
        return found

    async def show(self, job_id: str, view: View) -> Picture:
        """See `Executor.show`."""
        reply = await self._ask(Show(job_id, view))
        if isinstance(reply, Picture):
            return self._read(reply)
        raise _unexpected(reply)

    def stop(self) -> None:
        """See `Executor.stop`."""
        if self._shared is None or not self._running:
            return
        self._shared.stop_word[0] = self._running
        if self._hang is None:
            loop = asyncio.get_running_loop()
            self._hang = loop.call_later(self._hang_s, self._kill, self._running)

    def hold(self) -> None:
        """See `Executor.hold`."""
        if self._shared is not None and self._running:
            self._shared.hold_word[0] = self._running

    def forget(self, job_id: str) -> None:
        """See `Executor.forget`."""
        if not self._forgotten:
            asyncio.get_running_loop().call_later(_FORGET_S, self._tell_forgotten)
        self._forgotten.append(job_id)

    async def close(self) -> None:
        """See `Executor.close`."""
        self._closed = True
        self.stop()
        await self._end()

    def _spawn(self) -> _Child:
        """Starts the process. Blocks."""
        if self._shared is None:
            self._shared = Shared.allocate(self._max_pixels)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._target,
            args=(theirs, self._shared, self._settings),
            name="anytime-executor",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that the child's end is the only one, and its death an end of file
        return _Child(process, ours)

    def _kill(self, run: int) -> None:
        """A stage has ignored a stop; the process goes, and `run` hears of a crash."""
        if self._child is not None and self._running == run:
            logger.error("the executor ignored a stop for %g s and is killed", self._hang_s)
            self._child.process.kill()

    def _tell_forgotten(self) -> None:
        for job_id in self._forgotten:
            self._tell(Forget(job_id))
        self._forgotten.clear()

    def _read(self, picture: Picture) -> Picture:
        if self._shared is None:
            raise ExecutorCrashedError("the executor is not running")
        return self._shared.read_picture(picture)

    def _tell(self, command: Command) -> None:
        """Sends a command without a reply."""
        try:
            if self._child is not None:
                self._child.pipe.send(command)
        except OSError as error:
            logger.warning("the executor does not listen: %s", error)

    async def _ask(self, command: Command) -> Reply:
        """Sends a command and waits for its reply."""
        child = self._child
        if child is None:
            raise ExecutorCrashedError("the executor is not running")
        try:
            child.pipe.send(command)
        except OSError:
            raise await self._crashed() from None
        return await self._receive(child)

    async def _receive(self, child: _Child) -> Reply:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        descriptor = child.pipe.fileno()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
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


def _unexpected(reply: object) -> ExecutorCallError:
    """The child's own words, or that it said something else than was asked."""
    return ExecutorCallError(
        reply.detail if isinstance(reply, Fault) else f"it answered with a {type(reply).__name__}"
    )
