"""The real executor: a process of its own, watched and started again when it dies.

Decides how the server talks to that process. Knows neither the network nor the queue.

Why a process and not a thread. A fault in native code or the kernel's out-of-memory killer ends a
process, not a thread; with the networks in a child it takes down the requests that are in it, and
not the sockets. The event loop keeps an interpreter lock of its own, so that a ping is answered
while the network computes. And a computation that hangs can be killed, which no thread can. The
price is a copy of the image and of each map through a pipe: about 0.9 ms for 480x360 both ways
together, 1 to 2 % of what a small network takes; shared memory would save most of that and would
have to be cleaned up after each crash. A stop does not go through the pipe: it is one word of
shared memory that the child reads between two modules of the network.

All traffic runs in one thread, which keeps the order of commands and never blocks the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, TypeVar

from anytime_server.executor import (
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
from anytime_server.executor_worker import (
    Begin,
    Command,
    Fault,
    Forget,
    RunStage,
    Show,
    WorkerSettings,
    main,
)

logger = logging.getLogger(__name__)

_Reply = TypeVar("_Reply")

_LOOK_S: Final = 0.25
"""How often a waiting thread looks whether the child hangs or is to be given up."""

_GONE_S: Final = 2.0
"""How long a child has to end by itself when its pipe is closed."""


@dataclass(slots=True)
class _Child:
    """A running process and this side of its pipe."""

    process: BaseProcess
    pipe: Connection
    stop_word: Any  # multiprocessing's shared array of one 64-bit integer has no public type

    def end(self) -> None:
        """Closes the pipe, and kills what does not end by itself."""
        self.pipe.close()
        self.process.join(_GONE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class ProcessExecutor:
    """See the module.

    Args:
        settings: for the child.
        hang_s: a stage that ignores a stop for so long is killed with the process.
        target: what the child runs; tests put something that crashes.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        hang_s: float = 10.0,
        target: Callable[[Connection, Any, WorkerSettings], None] = main,
    ) -> None:
        self._settings = settings
        self._hang_s = hang_s
        self._target = target
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="executor")
        self._child: _Child | None = None
        self._runs = 0
        self._running = 0
        self._stopped_at: float | None = None
        self._closing = False

    @property
    def pid(self) -> int | None:
        """Of the child, or None while there is none."""
        return None if self._child is None else self._child.process.pid

    async def start(self) -> tuple[ServedModel, ...]:
        """See `Executor.start`."""
        served = await self._in_thread(self._start)
        logger.info("executor %s is ready: %s", self.pid, ", ".join(m.info.name for m in served))
        return served

    def begin(self, job_id: str, model: str, image: Image) -> None:
        """See `Executor.begin`. A child that is gone is noticed by the call that follows."""
        self._tell(Begin(job_id, model, image))

    async def run(self, job_id: str, stage: int) -> StageDone | StageStopped:
        """See `Executor.run`."""
        self._runs += 1
        self._running = self._runs
        self._stopped_at = None
        command = RunStage(job_id, stage, self._runs)
        try:
            reply = await self._in_thread(lambda: self._ask(command))
        finally:
            self._running = 0
            self._stopped_at = None
        match reply:
            case StageDone() | StageStopped():
                return reply
            case _:
                raise _unexpected(reply)

    async def show(self, job_id: str, view: View) -> Picture:
        """See `Executor.show`."""
        reply = await self._in_thread(lambda: self._ask(Show(job_id, view)))
        if isinstance(reply, Picture):
            return reply
        raise _unexpected(reply)

    def stop(self) -> None:
        """See `Executor.stop`."""
        if self._child is None or not self._running:
            return
        self._child.stop_word[0] = self._running
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

    def forget(self, job_id: str) -> None:
        """See `Executor.forget`."""
        self._tell(Forget(job_id))

    async def close(self) -> None:
        """See `Executor.close`."""
        if self._closing:
            return
        self._closing = True
        self.stop()
        await self._in_thread(self._end)
        self._thread.shutdown(wait=False)

    # In the thread.

    def _start(self) -> tuple[ServedModel, ...]:
        self._end()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        stop_word = context.RawArray("q", 1)
        process = context.Process(
            target=self._target,
            args=(theirs, stop_word, self._settings),
            name="anytime-executor",
            daemon=True,
        )
        process.start()
        theirs.close()  # so that the child's end is the only one, and its death is an end of file
        self._child = _Child(process, ours, stop_word)
        try:
            while not ours.poll(_LOOK_S):
                if self._closing:
                    raise ExecutorStartError("the server was closed while the models were loading")
            reply = ours.recv()
        except (EOFError, ConnectionError):
            process.join(_GONE_S)
            raise ExecutorStartError(
                f"the executor died while it loaded the models (exit code {process.exitcode})"
            ) from None
        if isinstance(reply, Fault):
            raise ExecutorStartError(reply.detail)
        served: tuple[ServedModel, ...] = reply
        return served

    def _ask(self, command: Command) -> object:
        """Sends a command and waits for its reply; kills a child that does not obey a stop."""
        child = self._send(command)
        try:
            while not child.pipe.poll(_LOOK_S):
                stopped_at = self._stopped_at
                if stopped_at is not None and time.monotonic() - stopped_at > self._hang_s:
                    logger.error("the executor ignored a stop for %.1f s", self._hang_s)
                    child.process.kill()
            return child.pipe.recv()
        except (EOFError, ConnectionError):
            raise self._crashed() from None

    def _send(self, command: Command) -> _Child:
        child = self._child
        if child is None:
            raise ExecutorCrashedError("the executor is not running")
        try:
            child.pipe.send(command)
        except (OSError, ValueError):
            raise self._crashed() from None
        return child

    def _crashed(self) -> ExecutorCrashedError:
        child = self._child
        code = None
        if child is not None:
            child.process.join(_GONE_S)
            code = child.process.exitcode
        self._end()
        return ExecutorCrashedError(
            f"the executor died (exit code {code}); the requests in it are lost, it starts again"
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    # Between the event loop and the thread.

    def _tell(self, command: Command) -> None:
        """Sends a command without a reply, in order with the others."""

        def send() -> None:
            if self._child is not None:
                try:
                    self._send(command)
                except ExecutorCrashedError as error:
                    logger.warning("%s", error)

        if not self._closing:
            self._thread.submit(send)

    async def _in_thread(self, call: Callable[[], _Reply]) -> _Reply:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _unexpected(reply: object) -> ExecutorCallError:
    """The child's own words, or that it said something else than was asked."""
    return ExecutorCallError(
        reply.detail if isinstance(reply, Fault) else f"it answered with a {type(reply).__name__}"
    )
