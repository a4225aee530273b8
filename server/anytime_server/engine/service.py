"""The house: what all adapters share, and the door through which every request comes in.

Decides whether a request may come in before anything is spent on it: model, size, room. Holds the
engine loop, the threads for images and the memory of HTTP requests. Knows no framework.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from anytime_protocol.budget import Budget
from anytime_protocol.client_messages import DEFAULT_URGENCY, OutputOptions
from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem
from anytime_protocol.messages import Failed as FailedMessage
from anytime_protocol.messages import Finished
from anytime_server import images
from anytime_server.api.access import Access
from anytime_server.core.costs import CostModel, SideCost
from anytime_server.core.jobs import Admitted, Job, Rejected
from anytime_server.core.scheduler import Scheduler
from anytime_server.engine.loop import EngineLoop, Load
from anytime_server.engine.requests import Sink, Ticket
from anytime_server.errors import DuplicateJobError, ServerError
from anytime_server.executor.base import Executor, ExecutorStartError, ServedModel
from anytime_server.images import Decoded, Header, ImageError
from anytime_server.metrics import Metrics
from anytime_server.settings import Settings

logger = logging.getLogger(__name__)

_REMEMBERED: Final = 256
_REMEMBERED_S: Final = 60.0
_LAG_S: Final = 0.1


class RefusedError(ServerError):
    """A request does not come in.

    Attributes:
        problem: what the client is told.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for, whichever way it came.

    Attributes:
        id: that the client knows.
        job_id: unique in the house.
        model: name.
        data: the image file.
        media_type: that the client says it has.
        budget: its limits.
        want: what to send back.
        arrival_s: when its clock started.
        transport: "http" or "websocket".
        encoding: of the answer, for the cost of it.
        urgency: 0 to 7.
    """

    id: str
    job_id: str
    model: str
    data: bytes
    media_type: str
    budget: Budget
    want: OutputOptions
    arrival_s: float
    transport: str
    encoding: str
    urgency: int = DEFAULT_URGENCY


@dataclass(slots=True)
class Record:
    """What is remembered about an HTTP request, running or over.

    Attributes:
        ticket: the request.
        budget: the last that was set.
        rev: of that budget.
        end: its terminal message, once it has one.
        ended_s: when that was.
    """

    ticket: Ticket
    budget: Budget
    rev: int = 0
    end: Finished | FailedMessage | None = None
    ended_s: float | None = None


@dataclass(slots=True)
class Service:
    """See the module.

    Attributes:
        settings: the operator's choices.
        executor: computes.
        metrics: counts.
        engine: the loop.
        access: who may ask.
        sockets: open websockets.
        going: set when the server is about to close its sockets.
        records: HTTP requests by id.
    """

    settings: Settings
    executor: Executor
    metrics: Metrics = field(default_factory=Metrics)
    engine: EngineLoop = field(init=False)
    access: Access = field(init=False)
    sockets: int = 0
    going: asyncio.Event = field(default_factory=asyncio.Event)
    records: dict[str, Record] = field(default_factory=dict)
    _entering: int = 0
    _decodes_ahead: bool = False
    _told: asyncio.Future[Header] | None = None
    _over: deque[Record] = field(default_factory=deque)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _readers: ThreadPoolExecutor = field(init=False)
    _decoders: ThreadPoolExecutor = field(init=False)
    encoders: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self.engine = EngineLoop(self.executor, self.metrics, self._make_scheduler)
        token, operator = self.settings.token, self.settings.operator_token
        self.access = Access(
            token.get_secret_value() if token else None,
            operator.get_secret_value() if operator else None,
            self.settings.allowed_origins,
        )
        # Headers are read apart from the images' decoding, so that a refusal never waits for it.
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="header")
        self._decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self.encoders = ThreadPoolExecutor(2, thread_name_prefix="encode")

    # Life.

    async def open(self) -> None:
        """Starts everything; returns before the models are loaded.

        The loading goes on as a task, so that health can be asked meanwhile. If it fails,
        `failure` says why.
        """
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._watch_lag())]

    async def wait_ready(self) -> None:
        """Returns when requests are admitted.

        Raises:
            ExecutorStartError: the models cannot be loaded.
        """
        loading = self._tasks[0]
        while self.engine.state.value == "starting" and not loading.done():
            await asyncio.sleep(0.01)
        if loading.done():
            loading.result()

    async def drain(self) -> None:
        """Admits no more; returns when all have been answered, or patience is over."""
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self.engine.drain()
        except TimeoutError:
            logger.warning("requests were still running after %g s", self.settings.drain_timeout_s)

    async def close(self) -> None:
        """Ends everything."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ExecutorStartError):
                logger.error("a task of the server failed", exc_info=result)
        await self.executor.close()
        for pool in (self._readers, self._decoders, self.encoders):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._decoders, images.warm_up)
        await self.engine.start()
        for served in self.engine.models.values():
            self.metrics.serves(served.info.name, served.engine)
        await self.engine.run()

    async def _watch_lag(self) -> None:
        """Measures how late a timer is: what every client of this event loop waits."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_S
            await asyncio.sleep(_LAG_S)
            self.metrics.lagged(max(loop.time() - due, 0.0))

    def _make_scheduler(self, served: tuple[ServedModel, ...]) -> Scheduler:
        """A scheduler that knows what was measured, the making of pictures included."""
        slowest_s = 1e6 * max(m.show_s_per_px for m in served)
        encode = {
            name: SideCost(0.001, slowest_s + 0.005) for name in ("png", "raw", "rle", "delta")
        }
        decode = dict.fromkeys(images.MEDIA_TYPES.values(), SideCost())
        costs = CostModel((m.profile for m in served), decode, encode)
        return Scheduler(costs, settings=self.settings.scheduling)

    # Requests.

    def check_loaded(self) -> None:
        """Refuses what makes no sense before the models are loaded.

        Raises:
            RefusedError: they are not.
        """
        if not self.engine.models:
            raise RefusedError(
                Problem(ErrorCode.NOT_READY, "the models are still loading", retry_after_ms=1000.0)
            )

    def check_model(self, name: str) -> ServedModel:
        """A model that is served.

        Raises:
            RefusedError: there is none of this name, or none at all yet.
        """
        self.check_loaded()
        served = self.engine.models.get(name)
        if served is None:
            names = ", ".join(self.engine.models)
            raise RefusedError(
                Problem(ErrorCode.UNKNOWN_MODEL, f"found {name!r}, expected one of {names}")
            )
        return served

    def check_open(self) -> None:
        """Refuses early what `admit` would refuse later, before a body is read.

        Raises:
            RefusedError: nothing is admitted now.
        """
        state = self.engine.state.value
        if state == "ready":
            return
        code = ErrorCode.DRAINING if state == "draining" else ErrorCode.NOT_READY
        raise RefusedError(Problem(code, f"the server is {state}", retry_after_ms=5000.0))

    async def admit(self, asked: Asked, make_sink: Callable[[], Sink]) -> tuple[Ticket, Admitted]:
        """Lets a request in, before its image is decoded.

        Args:
            asked: the request.
            make_sink: makes where it is told what happens.

        Raises:
            RefusedError: it does not come in.
        """
        self._entering += 1
        try:
            return await self._admit(asked, make_sink)
        finally:
            self._entering -= 1

    async def _admit(self, asked: Asked, make_sink: Callable[[], Sink]) -> tuple[Ticket, Admitted]:
        served = self.check_model(asked.model)
        self.check_open()
        try:
            images.check_media_type(asked.media_type)
            reading, load = self._read(asked.data)
            header = await reading
        except ImageError as error:
            raise RefusedError(Problem(error.code, str(error), request_id=asked.id)) from error
        self._check_room(asked, header.pixels)
        job = Job(
            id=asked.job_id,
            model=asked.model,
            height=header.height,
            width=header.width,
            arrival_s=asked.arrival_s,
            budget=asked.budget,
            urgency=asked.urgency,
            media_type=header.media_type,
            encoding=asked.encoding,
        )
        ticket = Ticket(
            job=job,
            served=served,
            want=asked.want,
            transport=asked.transport,
            sink=make_sink(),
            deadline_ms=asked.budget.at(0.0).deadline_ms,
            upload_s=self.engine.clock() - asked.arrival_s,
        )
        try:
            answer = self.engine.submit(ticket, load)
        except DuplicateJobError as error:
            raise RefusedError(
                Problem(ErrorCode.DUPLICATE_ID, f"request {asked.id} is not over yet")
            ) from error
        if isinstance(answer, Rejected):
            retry_ms = None if answer.retry_after_s is None else answer.retry_after_s * 1e3
            raise RefusedError(
                Problem(answer.code, answer.detail, request_id=asked.id, retry_after_ms=retry_ms)
            )
        return ticket, answer

    def _read(self, data: bytes) -> tuple[Awaitable[Header], Load]:
        """The header of an image that has come, and how to load the rest.

        Nothing is decoded for a request that may be refused; unless nobody else is here or on the
        way in, when hardly any is, and what would be done later is done while it is admitted.
        """
        loop, most = asyncio.get_running_loop(), self.settings.max_pixels
        # What is decoded ahead may be for one who is gone by now, so that only one is at a time.
        if self.engine.tickets or self._entering > 1 or self._decodes_ahead:
            header = self._probe(data)
            return header, lambda: loop.run_in_executor(self._decoders, images.decode, data, most)
        told = self._told = loop.create_future()

        def tell(header: Header) -> None:
            loop.call_soon_threadsafe(settle, header)

        def settle(header: Header) -> None:
            if not told.done():
                told.set_result(header)

        def note(image: asyncio.Future[Decoded]) -> None:
            self._decodes_ahead = False
            error = None if image.cancelled() else image.exception()
            if error is not None and not told.done():
                told.set_exception(error)

        image = loop.run_in_executor(self._decoders, images.decode, data, most, tell)
        image.add_done_callback(note)
        self._decodes_ahead = True
        return told, lambda: image

    async def _probe(self, data: bytes) -> Header:
        """The header of an image, after that of the one before it: first come, first in."""
        if self._told is not None and not self._told.done():
            await asyncio.wait([self._told])
        loop = asyncio.get_running_loop()
        most = self.settings.max_pixels
        return await loop.run_in_executor(self._readers, images.probe, data, most)

    def _check_room(self, asked: Asked, pixels: int) -> None:
        held, most = self.engine.pixels, self.settings.max_pixels_in_flight
        if held and held + pixels > most:
            self.metrics.rejected(asked.model, ErrorCode.OVERLOADED)
            raise RefusedError(
                Problem(
                    ErrorCode.OVERLOADED,
                    f"{held} px are in the house, {pixels} more would exceed {most}",
                    request_id=asked.id,
                    retry_after_ms=1000.0,
                )
            )

    # The memory of HTTP requests.

    def remember(self, ticket: Ticket) -> Record:
        """Keeps a request findable, until some time after its end."""
        record = Record(ticket, ticket.job.budget)
        self.records[ticket.id] = record
        return record

    def end(self, record: Record, end: Finished | FailedMessage) -> None:
        """A remembered request is over; what ended long ago is forgotten."""
        now = self.engine.clock()
        record.end, record.ended_s = end, now
        record.ticket.shown = None  # what is remembered is small
        self._over.append(record)
        while len(self._over) > _REMEMBERED or now - (self._over[0].ended_s or now) > _REMEMBERED_S:
            old = self._over.popleft()
            if self.records.get(old.ticket.id) is old:
                del self.records[old.ticket.id]
