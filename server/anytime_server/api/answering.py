"""From what happened to what the client is told: the protocol's messages for one request.

Decides which numbers stand in an `update`, a `final` and an `error`, and encodes an exit's arrays
just before they are sent. Both transports use it. Knows no socket.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor as Pool
from dataclasses import dataclass, field
from typing import TypeVar

from anytime_protocol import messages
from anytime_server import encoding
from anytime_server.core.jobs import Admitted, ExitMade, Failed, Final
from anytime_server.encoding import Received
from anytime_server.engine.loop import EngineLoop
from anytime_server.engine.requests import Ended, Shown, Ticket

_Result = TypeVar("_Result")

_SMALL_PX = 2**18
"""Up to so many px are encoded on the event loop: to a thread and back takes 0.4 ms, a PNG of
480x360 takes 0.5 ms, and nobody waits longer for the loop than one of these takes."""


@dataclass(slots=True)
class Answering:
    """Makes the messages of one request, for one reader.

    Attributes:
        ticket: the request.
        engine: tells the time, and learns what encoding takes.
        pool: threads for encoding.
        wire_id: the id that the client knows.
        received: what the client holds; changed with each update.
        last: exit of the last update, with what was found there; None before the first.
    """

    ticket: Ticket
    engine: EngineLoop
    pool: Pool
    wire_id: str
    received: Received = field(default_factory=Received)
    last: ExitMade | None = None

    @property
    def exit(self) -> int:
        """Of the last update; 0 before the first."""
        return 0 if self.last is None else self.last.exit

    def accepted(self, answer: Admitted) -> messages.Accepted:
        """The request was admitted."""
        exits = self.ticket.exits
        return messages.Accepted(
            self.wire_id, exits, min(max(answer.exit, 1), exits), max(answer.after_s, 0.0) * 1e3
        )

    async def update(self, shown: Shown, skipped: int) -> messages.Update:
        """An exit, encoded; to be sent at once, as the next delta builds on it."""
        ticket = self.ticket
        picture = shown.picture
        encoded = await self.timed(
            lambda: encoding.encode(picture, ticket.want, ticket.served.palette, self.received)
        )
        self.received = encoded.received
        self.last = shown.made
        result = shown.made.result
        return messages.Update(
            id=self.wire_id,
            exit=picture.exit,
            exits=ticket.exits,
            width=picture.width,
            height=picture.height,
            elapsed_ms=self.elapsed_ms(),
            compute_ms=shown.compute_s * 1e3,
            gmacs=shown.gmacs,
            confidence=result.confidence,
            confident_share=result.confident_share,
            skipped=skipped,
            parts=encoded.parts,
            keypoints=encoding.keypoints(picture),
            payload=encoded.payload,
        )

    def terminal(self, ended: Ended) -> messages.Finished | messages.Failed:
        """The end, after the last update."""
        match ended.ending:
            case Failed(code=code, detail=detail):
                return messages.Failed(self.wire_id, code, detail)
            case Final() as final:
                return self.finished(final)

    def finished(self, final: Final) -> messages.Finished:
        """The good end; its exit is that of the last update."""
        ticket = self.ticket
        result = None if self.last is None else self.last.result
        return messages.Finished(
            id=self.wire_id,
            exit=self.exit,
            exits=ticket.exits,
            reason=final.reason,
            confidence=None if result is None else result.confidence,
            confident_share=None if result is None else result.confident_share,
            gmacs=ticket.gmacs,
            total_ms=self.elapsed_ms(),
            queue_ms=max(ticket.queue_s, 0.0) * 1e3,
            decode_ms=ticket.decode_s * 1e3,
            compute_ms=ticket.compute_s * 1e3,
            encode_ms=ticket.encode_s * 1e3,
        )

    def elapsed_ms(self) -> float:
        """Since arrival."""
        return (self.engine.clock() - self.ticket.job.arrival_s) * 1e3

    async def timed(self, encode: Callable[[], _Result]) -> _Result:
        """Encodes, in a thread if that takes long, and has the cost model learn what it took."""
        began = time.perf_counter()
        if self.ticket.pixels <= _SMALL_PX:
            encoded = encode()
        else:
            encoded = await asyncio.get_running_loop().run_in_executor(self.pool, encode)
        self.engine.encoded(self.ticket, time.perf_counter() - began)
        return encoded
