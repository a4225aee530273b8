"""The client for programs on an event loop; `blocking` is the same for all others.

Decides when to connect and to connect anew, and what a loop over a stream does at its end. What is
said is `conversation`'s to decide, how it travels `links`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

import httpx

from anytime_client import web
from anytime_client.address import DEFAULT_URL, Address, is_worth_retrying, pauses
from anytime_client.errors import (
    AnswerError,
    AnytimeError,
    ConnectError,
    ConnectionLostError,
    RequestError,
)
from anytime_client.following import ENOUGH, Following, Satisfied
from anytime_client.links import Exchange, HttpCaller, HttpLink, Link, SocketLink
from anytime_client.questions import DEFAULT_WANT, Image, Question, Transport, question_of
from anytime_client.results import Result, ServerBudget, Update
from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import DEFAULT_URGENCY, OutputOptions
from anytime_protocol.messages import Accepted, BudgetApplied
from anytime_protocol.resources import ModelInfo


class AsyncStream:
    """The updates of one request, as they come. It is sent when the loop, `with` or wait begins.

    Use it in an `async with` statement where the loop may be left in the middle and the server
    should stop at that very moment, and not when the event loop next finds the time.
    """

    def __init__(
        self,
        begin: Callable[[], Awaitable[Exchange]],
        satisfied: Satisfied | None,
        timeout_s: float,
    ) -> None:
        self._begin = begin
        self._exchange: Exchange | None = None
        self._satisfied = satisfied
        self._following = Following()
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        """Sends the request."""
        await self.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancels the request if it still runs."""
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Each exit's update as it comes, until the request is over; the errors are `next`'s."""
        try:
            while (update := await self.next()) is not None:
                enough = self._satisfied is not None and self._satisfied(update)
                if enough:
                    await self.enough()
                yield update
                if enough:
                    await self.wait()
        finally:
            await self.close()

    @property
    def is_over(self) -> bool:
        """Whether the request has ended, or was given up."""
        return self._following.is_over

    @property
    def accepted(self) -> Accepted | None:
        """The server's prediction, once it is in."""
        return self._following.accepted

    @property
    def result(self) -> Result:
        """How the request ended.

        Raises:
            AnytimeError: the one that it ended with.
            RuntimeError: it is not over, or was given up.
        """
        return self._following.outcome()

    @property
    def applied(self) -> tuple[BudgetApplied, ...]:
        """The server's answers to changes of the budget, so far."""
        return tuple(self._following.applied)

    async def begin(self) -> None:
        """Sends the request now, rather than when its first update is waited for.

        Raises:
            ConnectError, RequestError, AnswerError: it cannot be sent, or is refused.
        """
        await self._begun()

    async def next(self) -> Update | None:
        """Waits for the next update; None once the request is over.

        Raises:
            RequestError: the server failed or refused the request.
            ConnectionLostError: the connection ended before it did.
            SilenceError: the server was silent for too long.
        """
        while not self._following.is_over:
            update = await self._take()
            if update is not None:
                return update
        return None

    async def set_budget(self, budget: Budget) -> None:
        """Replaces the budget while the server computes; nothing happens if it is done.

        Args:
            budget: the new one; limits that it does not name no longer hold.
        """
        await (await self._begun()).set_budget(budget)

    async def enough(self) -> None:
        """Says that the map is good enough: the server stops, its result is `satisfied`."""
        await (await self._begun()).set_budget(ENOUGH)

    async def cancel(self) -> None:
        """Tells the server to stop at once; the loop ends with the result `cancelled`."""
        await (await self._begun()).cancel()

    async def wait(self) -> Result:
        """Passes over the updates that are still to come.

        Raises:
            RequestError, ConnectionLostError, SilenceError: as `next`.
        """
        while await self.next() is not None:
            continue
        return self._following.outcome()

    async def close(self) -> None:
        """Gives the request up, if it still runs, without waiting for its end."""
        if not self._following.is_over:
            self._following.given_up = True
            if self._exchange is not None:
                await self._exchange.abandon()

    async def _begun(self) -> Exchange:
        if self._exchange is None:
            self._exchange = await self._begin()
        return self._exchange

    async def _take(self) -> Update | None:
        try:
            exchange = await self._begun()
            return self._following.take(await exchange.next(self._timeout_s))
        except AnytimeError:
            await self.close()
            raise


class AsyncClient:
    """A client of one server, for one event loop; it connects when it has to.

    A request that runs when the connection ends fails with `ConnectionLostError`; the next one
    connects anew.

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
        self._address = Address.parse(url, token)
        self._transport = Transport(transport)
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._opening = asyncio.Lock()
        self._link: Link | None = None

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        await self.close()

    async def models(self) -> tuple[ModelInfo, ...]:
        """What the server serves; the first is the default. Connects if need be."""
        return (await self._connected()).models

    async def predict(
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
        """The best map that the budget allows; arguments and errors are those of `Client.predict`.

        Args:
            image: a path, a file's bytes, uint8 pixels (H, W[, 3]) or a Pillow image.
            model: name; the server's first unless given.
            deadline_ms: from the request's arrival at the server to the last byte of its answer.
            max_exit: the deepest exit, 1 or more.
            budget: more limits; the tightest hold.
            want: what to send back; the class map alone unless given.
            urgency: 0 (most) to 7 (least).
        """
        stream = self.stream(
            image,
            model=model,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            budget=budget,
            want=replace(DEFAULT_WANT if want is None else want, progress=False),
            urgency=urgency,
        )
        async with stream:
            return await stream.wait()

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
    ) -> AsyncStream:
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
        question = question_of(
            image,
            model=model,
            budget=budget,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            want=want,
            urgency=urgency,
        )
        return AsyncStream(lambda: self._begin(question), satisfied, self._timeout_s)

    async def server_budget(self) -> ServerBudget:
        """The server's own budget and load."""
        return web.read_server_budget(await self._call(web.get(self._address, "/v1/budget")))

    async def set_server_budget(self, budget: Budget) -> None:
        """Replaces the operator's budget; the times of its schedule count from now.

        Raises:
            RequestError: the token does not allow it, or the budget is malformed.
        """
        web.check(await self._call(web.set_server_budget(self._address, budget)))

    async def close(self) -> None:
        """Closes the connection; requests that run are lost. The next request opens it anew."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _begin(self, question: Question) -> Exchange:
        """Sends a question; once more if it met the end of an idle connection."""
        try:
            return await (await self._connected()).begin(question)
        except ConnectionLostError:
            return await (await self._connected()).begin(question)

    async def _connected(self) -> Link:
        async with self._opening:
            if self._link is None:
                self._link = await self._open()
            elif not self._link.is_open:
                await self._link.close()
                self._link = await self._open_again()
            return self._link

    async def _open_again(self) -> Link:
        delays = pauses(self._reconnect_s)
        while True:
            try:
                return await self._open()
            except ConnectError as error:
                fault: AnytimeError = error
            except RequestError as error:
                if not is_worth_retrying(error):
                    raise
                fault = error
            pause = next(delays, None)
            if pause is None:
                raise fault
            await asyncio.sleep(pause)

    async def _open(self) -> Link:
        if self._transport is Transport.HTTP:
            return await HttpLink.open(self._address, self._timeout_s)
        try:
            return await SocketLink.open(self._address, self._timeout_s)
        except AnswerError:
            if self._transport is Transport.WEBSOCKET:
                raise
            return await HttpLink.open(self._address, self._timeout_s)

    async def _call(self, call: web.Call) -> httpx.Response:
        caller = HttpCaller(self._address, self._timeout_s)
        try:
            return await caller.call(call)
        finally:
            await caller.close()
