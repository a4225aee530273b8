"""The client for programs without an event loop: `asynchronous` on a thread of its own.

Decides only what is done in the caller's thread: reading the image, the loop over a stream, and the
`satisfied` callback. All else is the asynchronous client's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from anytime_client.address import DEFAULT_URL
from anytime_client.asynchronous import AsyncClient, AsyncStream
from anytime_client.following import Satisfied
from anytime_client.loop_thread import LoopThread
from anytime_client.questions import DEFAULT_WANT, Image, Transport
from anytime_client.results import Result, ServerBudget, Update
from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import DEFAULT_URGENCY, OutputOptions
from anytime_protocol.messages import Accepted, BudgetApplied
from anytime_protocol.resources import ModelInfo


class Stream:
    """The updates of one request, as they come. Iterate it; leaving the loop cancels the request.

    Use it in a `with` statement where the loop may be left in the middle and the server should
    stop at that very moment, whatever the garbage collector does.
    """

    def __init__(
        self, loop: LoopThread, stream: AsyncStream, satisfied: Satisfied | None = None
    ) -> None:
        self._loop = loop
        self._stream = stream
        self._satisfied = satisfied

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancels the request if it still runs."""
        self.close()

    def __iter__(self) -> Iterator[Update]:
        """Each exit's update as it comes, until the request is over.

        An iterator that is dropped before its end cancels the request: that is how a loop that is
        left does it, and `next(iter(stream))` would too.

        Raises:
            RequestError: the server failed or refused the request.
            ConnectionLostError: the connection ended before it did.
            SilenceError: the server was silent for too long.
        """
        try:
            while (update := self._loop.run(self._stream.next())) is not None:
                enough = self._satisfied is not None and self._satisfied(update)
                if enough:
                    self.enough()
                yield update
                if enough:
                    self.wait()
        finally:
            self.close()

    @property
    def accepted(self) -> Accepted | None:
        """The server's prediction, once it is in."""
        return self._stream.accepted

    @property
    def result(self) -> Result:
        """How the request ended.

        Raises:
            AnytimeError: the one that it ended with.
            RuntimeError: it is not over, or was given up.
        """
        return self._stream.result

    @property
    def applied(self) -> tuple[BudgetApplied, ...]:
        """The server's answers to changes of the budget, so far."""
        return self._stream.applied

    def set_budget(self, budget: Budget) -> None:
        """Replaces the budget while the server computes; nothing happens if it is done.

        Args:
            budget: the new one; limits that it does not name no longer hold.
        """
        self._loop.run(self._stream.set_budget(budget))

    def enough(self) -> None:
        """Says that the map is good enough: the server stops, its result is `satisfied`."""
        self._loop.run(self._stream.enough())

    def cancel(self) -> None:
        """Tells the server to stop at once; the loop ends with the result `cancelled`."""
        self._loop.run(self._stream.cancel())

    def wait(self) -> Result:
        """Passes over the updates that are still to come.

        Raises:
            RequestError, ConnectionLostError, SilenceError: as in the loop.
        """
        return self._loop.run(self._stream.wait())

    def close(self) -> None:
        """Gives the request up, if it still runs, without waiting for its end."""
        if not self._stream.is_over:
            self._loop.finish(self._stream.close())


class Client:
    """A client of one server. It connects with its first request, and again when it has to.

    A request that runs when the connection ends fails with `ConnectionLostError`: the server has
    cancelled it, and whether its image is still worth asking about is the caller's to know. The
    next request connects anew.

    Threads may share a client.

    Args:
        url: of the server, such as `http://127.0.0.1:8000`; a path is kept.
        token: bearer token, where the server has one.
        transport: websocket or HTTP; by itself it takes HTTP only where no websocket gets through.
        timeout_s: the longest silence of the server; also for connecting.
        reconnect_s: how long to try again after a connection that once worked. The first
            attempt is not repeated: a wrong URL fails at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        transport: Transport | str = Transport.AUTO,
        timeout_s: float = 30.0,
        reconnect_s: float = 10.0,
    ) -> None:
        self._make = partial(
            AsyncClient,
            url,
            token,
            transport=transport,
            timeout_s=timeout_s,
            reconnect_s=reconnect_s,
        )
        self._client = self._make()
        self._loop: LoopThread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        self.close()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """What the server serves; the first is the default. Connects if need be."""
        loop, client = self._running()
        return loop.run(client.models())

    def predict(
        self,
        image: Image,
        *,
        model: str | None = None,
        deadline_ms: float | None = None,
        max_exit: int | None = None,
        budget: Budget | None = None,
        want: OutputOptions | None = None,
        urgency: int = DEFAULT_URGENCY,
    ) -> Result:
        """The best map that the budget allows.

        Args:
            image: a path, a file's bytes, uint8 pixels (H, W[, 3]) or a Pillow image.
            model: name; the server's first unless given.
            deadline_ms: from the request's arrival at the server to the last byte of its answer.
            max_exit: the deepest exit, 1 or more.
            budget: more limits; the tightest hold.
            want: what to send back; the class map alone unless given.
            urgency: 0 (most) to 7 (least).

        Raises:
            ImageError: the image cannot be sent.
            RequestError: the server refused or failed the request, and says why.
            ConnectError, SilenceError, AnswerError: the server is not there, silent or broken.
        """
        loop, client = self._running()
        stream = client.stream(
            image,
            model=model,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            budget=budget,
            want=replace(DEFAULT_WANT if want is None else want, progress=False),
            urgency=urgency,
        )
        return loop.run(_outcome(stream))

    def stream(
        self,
        image: Image,
        *,
        model: str | None = None,
        deadline_ms: float | None = None,
        max_exit: int | None = None,
        budget: Budget | None = None,
        want: OutputOptions | None = None,
        urgency: int = DEFAULT_URGENCY,
        satisfied: Satisfied | None = None,
    ) -> Stream:
        """Asks for a map at each exit; the errors are those of `predict`.

        Args:
            image: a path, a file's bytes, uint8 pixels (H, W[, 3]) or a Pillow image.
            model: name; the server's first unless given.
            deadline_ms: from the request's arrival at the server to the last byte of its answer.
            max_exit: the deepest exit, 1 or more.
            budget: more limits; the tightest hold.
            want: what to send back; the class map alone unless given.
            urgency: 0 (most) to 7 (least).
            satisfied: called with each update; once it returns true the server stops and the loop
                ends after that update.
        """
        loop, client = self._running()
        stream = client.stream(
            image,
            model=model,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            budget=budget,
            want=want,
            urgency=urgency,
        )
        loop.run(stream.begin())
        return Stream(loop, stream, satisfied)

    def server_budget(self) -> ServerBudget:
        """The server's own budget and load."""
        loop, client = self._running()
        return loop.run(client.server_budget())

    def set_server_budget(self, budget: Budget) -> None:
        """Replaces the operator's budget; the times of its schedule count from now.

        Raises:
            RequestError: the token does not allow it, or the budget is malformed.
        """
        loop, client = self._running()
        loop.run(client.set_server_budget(budget))

    def close(self) -> None:
        """Closes the connection; requests that run are lost. The next request opens it anew."""
        with self._lock:
            client, self._client = self._client, self._make()
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.run(client.close())

    def _running(self) -> tuple[LoopThread, AsyncClient]:
        """The client and its thread, which ends when nothing refers to it any more."""
        with self._lock:
            if self._loop is None:
                self._loop = LoopThread()
            return self._loop, self._client


async def _outcome(stream: AsyncStream) -> Result:
    async with stream:
        return await stream.wait()
