"""The asynchronous client; `client` has the same for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self, TypeVar

from anytime_client.address import DEFAULT_URL, Address, is_worth_retrying, retry_delays
from anytime_client.errors import AnytimeError, ConnectError, ConnectionLostError, RequestError
from anytime_client.http import HttpApi
from anytime_client.images import ImageLike
from anytime_client.requests import InferRequest, VideoRequest, last_map_only
from anytime_client.results import Result, Update
from anytime_client.session import RequestEvent
from anytime_client.stream_state import SATISFIED_BUDGET, Satisfied, StreamState
from anytime_client.transport import (
    RequestStream,
    Transport,
    TransportKind,
    VideoStream,
    open_transport,
)
from anytime_client.video import AsyncVideo, Frames
from anytime_protocol.budget import Budget
from anytime_protocol.messages import (
    DEFAULT_URGENCY,
    Accepted,
    BudgetApplied,
    OutputOptions,
    ReuseOptions,
)
from anytime_protocol.model_info import ModelInfo
from anytime_protocol.resources import ServerBudget, ServerBudgetStatus

T = TypeVar("T")


class AsyncStream:
    """The updates of one request, as they come. It is sent when the loop, `with` or wait begins.

    Leaving the `async with` statement cancels the request at once; leaving the loop alone cancels
    it only when the event loop closes the iterator.
    """

    def __init__(
        self,
        send: Callable[[], Awaitable[RequestStream]],
        is_closed: Callable[[], bool],
        satisfied: Satisfied | None = None,
    ) -> None:
        self._send = send
        self._is_closed = is_closed
        self._stream: RequestStream | None = None
        self._satisfied = satisfied
        self._state = StreamState()
        self._may_resend = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Each exit's update as it comes, until the request is over; errors are those of `next`."""
        try:
            while (update := await self.next()) is not None:
                satisfied = self._satisfied is not None and self._satisfied(update)
                if satisfied:
                    await self.enough()
                yield update
                if satisfied:
                    await self.wait()
        finally:
            await self.close()

    @property
    def is_over(self) -> bool:
        """Whether the request has ended, or was given up."""
        return self._state.is_over

    @property
    def accepted(self) -> Accepted | None:
        """The server's prediction, once it is in."""
        return self._state.accepted

    @property
    def result(self) -> Result:
        """How the request ended.

        Raises:
            AnytimeError: the one that it ended with.
            RuntimeError: it is not over, or was given up.
        """
        return self._state.outcome()

    @property
    def applied(self) -> tuple[BudgetApplied, ...]:
        """The server's answers to changes of the budget, so far."""
        return tuple(self._state.applied)

    async def start(self) -> None:
        """Sends the request now, rather than when its first update is waited for.

        Raises:
            ConnectError, RequestError, AnswerError: it cannot be sent, or is refused.
        """
        await self._started()

    async def next(self) -> Update | None:
        """Waits for the next update; None once the request is over.

        Raises:
            RequestError: the server failed or refused the request.
            ConnectionLostError: the connection ended before it did.
            SilenceError: the server sent nothing for too long.
        """
        while not self._state.is_over:
            try:
                update = self._state.handle(await self._event())
            except AnytimeError:
                await self.close()
                raise
            if update is not None:
                return update
        return None

    async def set_budget(self, budget: Budget) -> None:
        """Replaces the budget while the server computes; nothing happens if it is done.

        Args:
            budget: the new one; limits that it does not name no longer hold.
        """
        self._may_resend = False
        await (await self._started()).set_budget(budget)

    async def enough(self) -> None:
        """Ends the request with the map that there is; its result's reason is `satisfied`."""
        await self.set_budget(SATISFIED_BUDGET)

    async def cancel(self) -> None:
        """Tells the server to stop at once; the loop ends with the result `cancelled`."""
        self._may_resend = False
        await (await self._started()).cancel()

    async def wait(self) -> Result:
        """Discards the updates that are still to come, and returns the result.

        Raises:
            RequestError, ConnectionLostError, SilenceError: the request failed.
        """
        while await self.next() is not None:
            continue
        return self._state.outcome()

    async def close(self) -> None:
        """Gives the request up, if it still runs, without waiting for its end."""
        if not self._state.is_over:
            self._state.abandoned = True
            if self._stream is not None:
                await self._stream.close()

    async def _event(self) -> RequestEvent:
        """The next event; sends the request once more if its connection was just being closed."""
        event = await (await self._started()).next()
        if self._may_resend and self._was_never_read(event):
            self._stream = await self._send()
            event = await self._stream.next()
        self._may_resend = False
        return event

    def _was_never_read(self, first: RequestEvent) -> bool:
        in_order = isinstance(first, ConnectionLostError) and first.in_order
        return in_order and not self._is_closed()

    async def _started(self) -> RequestStream:
        if self._stream is None:
            self._stream = await self._send()
        return self._stream


class AsyncClient:
    """A client of one server, for one event loop. It connects with its first request.

    A request that runs when the connection ends fails with `ConnectionLostError`: the server has
    cancelled it, and whether it is still worth repeating is for the caller to decide. The next
    request connects anew. A request that met the end of an idle connection (the server closed it
    in order and said nothing of the request, so it never read it) is sent once more.

    Any number of requests may be made together: those beyond what the server takes on a connection
    (`max_in_flight`) wait for a place here, before their deadline begins to count.

    Args:
        url: of the server, such as `http://127.0.0.1:8000`; a path is kept.
        token: bearer token, where the server has one.
        transport: websocket or HTTP; by default HTTP only where no websocket gets through.
        timeout_s: the longest silence of the server; also for connecting.
        reconnect_s: how long to try again after a connection that once worked. The first
            attempt is not repeated: a wrong URL fails at once.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        transport: TransportKind | str = TransportKind.AUTO,
        timeout_s: float = 30.0,
        reconnect_s: float = 10.0,
    ) -> None:
        self._address = Address.parse(url, token)
        self._kind = TransportKind(transport)
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._connecting = asyncio.Lock()
        self._transport: Transport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server has; the first is the default. Connects if need be."""
        return (await self._connected()).models

    async def predict(
        self,
        image: ImageLike,
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
            image: a path, a file's bytes, a Pillow image, or uint8 pixels: (H, W) grey, (H, W, 3)
                red, green, blue (OpenCV's frames are blue first: pass `frame[:, :, ::-1]`).
            model: name; the server's first unless given.
            deadline_ms: from the request's arrival at the server to the last byte of its answer.
            max_exit: the deepest exit, 1 or more.
            budget: more limits; the tightest hold.
            want: what to send back; the class map alone unless given.
            urgency: 0 (most) to 7 (least).

        Raises:
            ImageError: the image cannot be sent.
            BudgetError, FieldError: an argument is not of its kind or range.
            RequestError: the server refused or failed the request, and says why.
            ConnectError, SilenceError, AnswerError: the server is not there, silent or broken.
        """
        stream = self.stream(
            image,
            model=model,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            budget=budget,
            want=last_map_only(want),
            urgency=urgency,
        )
        async with stream:
            return await stream.wait()

    def stream(
        self,
        image: ImageLike,
        *,
        model: str | None = None,
        deadline_ms: float | None = None,
        max_exit: int | None = None,
        budget: Budget | None = None,
        want: OutputOptions | None = None,
        urgency: int = DEFAULT_URGENCY,
        satisfied: Satisfied | None = None,
    ) -> AsyncStream:
        """Requests a map at each exit; the errors are those of `predict`.

        Args:
            image: a path, a file's bytes, a Pillow image, or uint8 pixels: (H, W) grey, (H, W, 3)
                red, green, blue (OpenCV's frames are blue first: pass `frame[:, :, ::-1]`).
            model: name; the server's first unless given.
            deadline_ms: from the request's arrival at the server to the last byte of its answer.
            max_exit: the deepest exit, 1 or more.
            budget: more limits; the tightest hold.
            want: what to send back; the class map alone unless given.
            urgency: 0 (most) to 7 (least).
            satisfied: called with each update; once it returns true the server stops and the loop
                ends after that update.
        """
        request = InferRequest.make(
            image,
            model=model,
            budget=budget,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            want=want,
            urgency=urgency,
        )
        return AsyncStream(lambda: self._send(request), lambda: self._transport is None, satisfied)

    def video(
        self,
        frames: Frames,
        *,
        model: str | None = None,
        deadline_ms: float | None = None,
        max_exit: int | None = None,
        budget: Budget | None = None,
        want: OutputOptions | None = None,
        urgency: int = DEFAULT_URGENCY,
        share: float = 1.0,
        reuse: ReuseOptions | None = None,
        every: bool = False,
    ) -> AsyncVideo:
        """Streams frames, and gives back each answered frame's best map.

        The latest frame wins: while one is computed, newer ones replace each other.

        Args:
            frames: images as `predict` takes them, iterated with `for` (in a thread) or `async
                for`; a camera's, or a file's.
            model: name; the server's first unless given.
            deadline_ms: from a frame's arrival at the server to the last byte of its answer.
            max_exit: the deepest exit, 1 or more.
            budget: more limits of each frame; the tightest hold.
            want: what to send back; the class map alone unless given.
            urgency: 0 (most) to 7 (least).
            share: of the machine's time that the stream may take, 0.001 to 1.
            reuse: take what has not changed from earlier frames, within these bounds; by default
                each frame is computed alone.
            every: send a frame only when the one before has ended, so that none is skipped.

        Raises:
            BudgetError, FieldError: an argument is not of its kind or range.
        """
        request = VideoRequest.make(
            model=model,
            budget=budget,
            deadline_ms=deadline_ms,
            max_exit=max_exit,
            want=want,
            urgency=urgency,
            share=share,
            reuse=reuse,
        )
        return AsyncVideo(
            self._open_video,
            frames,
            request,
            every=every,
            timeout_s=self._timeout_s,
            reconnect_s=self._reconnect_s,
        )

    async def server_budget(self) -> ServerBudgetStatus:
        """The operator's budget, the limits in force now, and the server's load."""
        return await self._call(HttpApi.server_budget)

    async def set_server_budget(self, budget: Budget | ServerBudget) -> ServerBudgetStatus:
        """Replaces the operator's budget; the times of its schedule count from now.

        Args:
            budget: limits and a schedule, or with a `ServerBudget` also load caps, floors and a
                daily schedule.

        Returns:
            The same as `server_budget`, after the change.

        Raises:
            RequestError: the token does not allow it, or the budget is malformed.
        """
        return await self._call(lambda api: api.set_server_budget(budget))

    async def close(self) -> None:
        """Closes the connection; requests that run are lost. The next request opens it anew."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _send(self, request: InferRequest) -> RequestStream:
        return await self._begin(lambda transport: transport.infer(request))

    async def _open_video(self, request: VideoRequest) -> VideoStream:
        return await self._begin(lambda transport: transport.open_video(request))

    async def _begin(self, send: Callable[[Transport], Awaitable[T]]) -> T:
        """Sends the first message of a request or a stream, over another connection if need be."""
        transport = await self._connected()
        try:
            return await send(transport)
        except ConnectionLostError:  # while it waited for a place; nothing was sent
            if self._transport is None:
                raise
            return await send(await self._connected())

    async def _connected(self) -> Transport:
        async with self._connecting:
            if self._transport is None:
                self._transport = await self._open()
            elif not self._transport.is_open:
                await self._transport.close()
                self._transport = await self._reopen()
            return self._transport

    async def _call(self, method: Callable[[HttpApi], Awaitable[T]]) -> T:
        api = HttpApi(self._address, self._timeout_s)
        try:
            return await method(api)
        finally:
            await api.close()

    async def _open(self) -> Transport:
        return await open_transport(self._kind, self._address, self._timeout_s)

    async def _reopen(self) -> Transport:
        for delay_s in retry_delays(self._reconnect_s):
            try:
                return await self._open()
            except ConnectError:
                pass
            except RequestError as error:
                if not is_worth_retrying(error):
                    raise
            await asyncio.sleep(delay_s)
        return await self._open()
