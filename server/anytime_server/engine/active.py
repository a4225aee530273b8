"""The requests in the house: their pictures, and the one way out.

Decides when an exit becomes a picture and makes sure that each request that came in goes out once,
told so. Knows the executor, because pictures are made there; knows neither the scheduler nor time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from anytime_protocol.enums import ErrorCode
from anytime_server.core.jobs import Ending, ExitMade, Failed
from anytime_server.engine.requests import Ended, Shown, Ticket
from anytime_server.executor.base import Executor, ExecutorCallError, Picture
from anytime_server.metrics import Metrics

logger = logging.getLogger(__name__)


class House:
    """See the module.

    Args:
        executor: makes pictures.
        metrics: counts.
        clock: monotonic seconds.
    """

    def __init__(self, executor: Executor, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.empty = asyncio.Event()
        self.empty.set()
        self._executor = executor
        self._metrics = metrics
        self._clock = clock

    def enter(self, ticket: Ticket) -> None:
        """A request has been admitted."""
        self.tickets[ticket.id] = ticket
        self._metrics.in_house(len(self.tickets))
        self.empty.clear()

    def unseen(self) -> Iterator[Ticket]:
        """Requests with an exit that is no picture yet, though somebody listens."""
        return (t for t in list(self.tickets.values()) if t.unseen and not t.discarded)

    def made(
        self, ticket: Ticket, made: ExitMade, at_s: float, picture: Picture | None = None
    ) -> None:
        """A request has had an exit since `at_s`, and maybe its picture at once."""
        ticket.made, ticket.exit = made, made.exit
        self._metrics.exit_made(ticket, at_s)
        if picture is not None:
            self._keep(ticket, made, picture)

    async def picture(self, ticket: Ticket) -> None:
        """Has the executor make the picture of a request's last exit.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        if ticket.made is None:
            raise RuntimeError(f"request {ticket.id} has no exit to show")
        self._keep(ticket, ticket.made, await self._executor.show(ticket.id, ticket.view))

    async def show(self, ticket: Ticket) -> None:
        """Shows a request's last exit to its client, who wants to see each.

        Raises:
            ExecutorCrashedError: see there.
            ExecutorCallError: see there.
        """
        if ticket.wants_picture():
            await self.picture(ticket)
        alive = self.tickets.get(ticket.id) is ticket and not ticket.discarded
        if alive and ticket.shown is not None:
            ticket.sink(ticket.shown)

    async def finish(self, ending: Ending) -> None:
        """Ends a request, its best map shown.

        Raises:
            ExecutorCrashedError: see there; the request is still in the house.
        """
        ticket = self.tickets.get(ending.job_id)
        if ticket is not None and ticket.wants_picture(ending):
            try:
                await self.picture(ticket)
            except ExecutorCallError as error:
                logger.error("request %s: %s", ticket.id, error)
                ending = Failed(ticket.id, ErrorCode.INTERNAL, str(error), ticket.compute_s)
        self.leave(ending)

    def finish_now(self, ending: Ending) -> bool:
        """Ends a request if that needs no picture; returns whether it has ended."""
        ticket = self.tickets.get(ending.job_id)
        if ticket is not None and ticket.wants_picture(ending):
            return False
        self.leave(ending)
        return True

    def leave(self, ending: Ending) -> None:
        """The only way out; a request that has left is ignored."""
        ticket = self.tickets.pop(ending.job_id, None)
        if ticket is None:
            return
        if ticket.image is not None:
            ticket.image.cancel()
            ticket.image = None
        if ticket.begun:
            self._executor.forget(ticket.id)
        self._metrics.ended(ticket, ending, self._clock())
        self._metrics.in_house(len(self.tickets))
        if not self.tickets:
            self.empty.set()
        unwanted = ticket.discarded or isinstance(ending, Failed)
        try:
            ticket.sink(Ended(ending, None if unwanted else ticket.shown))
        except Exception:
            # An adapter's mistake must not end the loop that all others depend on.
            logger.exception("the sink of request %s failed", ticket.id)

    def _keep(self, ticket: Ticket, made: ExitMade, picture: Picture) -> None:
        ticket.encode_s += picture.elapsed_s
        ticket.shown = Shown(made, picture, ticket.compute_s, ticket.gmacs)
