"""A request on its way through the house: what the engine loop and its client's adapter share.

Decides what is kept about a request between the wire and the scheduler, and what its adapter is
told: `Shown` for an exit, `Ended` once at the end. Knows no socket and computes nothing.

An adapter (HTTP, websocket) makes a ticket with a `sink` that the engine loop calls on the event
loop. The sink must only take note; writing is the adapter's own business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from anytime_protocol.client_messages import OutputOptions
from anytime_server.core.jobs import Ending, ExitMade, Failed, Job
from anytime_server.executor.base import Picture, ServedModel, View
from anytime_server.images import Decoded


@dataclass(frozen=True, slots=True)
class Shown:
    """An exit has been made, and this is what it looks like.

    Attributes:
        made: the exit.
        picture: its maps.
        compute_s: seconds of network time until then.
        gmacs: 1e9 multiply-adds until then.
    """

    made: ExitMade
    picture: Picture
    compute_s: float
    gmacs: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The request is over.

    Attributes:
        ending: how.
        shown: its best exit, if it has one and somebody may still look at it.
    """

    ending: Ending
    shown: Shown | None


Happening: TypeAlias = Shown | Ended
Sink: TypeAlias = Callable[[Happening], None]


@dataclass(slots=True, eq=False)
class Ticket:
    """One request; the engine loop is the only one that changes it, `encode_s` aside.

    Attributes:
        job: what the scheduler knows of it; its `id` is unique in the house.
        served: the model that was asked for.
        want: what the client wants to receive.
        transport: "http" or "websocket", for metrics.
        sink: is told what happens.
        deadline_ms: the hard deadline that it came with; None without one.
        discarded: nobody listens any more, so nothing needs to be shown.
        limits_move: its limits have been changed, or change with time.
        image: the decoding, under way from admission until the executor has the image.
        begun: the executor has its image.
        exit: exits made.
        made: the last one.
        shown: the last one that was made into a picture.
        ready_s: when it began to wait for its next stage.
        first_s: when its first stage began; None before.
        upload_s: seconds that receiving the image took.
        decode_s: seconds spent on decoding.
        queue_s: seconds spent waiting.
        compute_s: seconds spent in the network.
        encode_s: seconds spent on pictures and their encoding.
        gmacs: 1e9 multiply-adds spent.
        cancelled_s: when it was cancelled; None if it was not.
        last_exit_s: when its last exit was made; None before.
    """

    job: Job
    served: ServedModel
    want: OutputOptions
    transport: str
    sink: Sink
    deadline_ms: float | None = None
    discarded: bool = False
    limits_move: bool = False
    image: asyncio.Task[Decoded] | None = None
    begun: bool = False
    exit: int = 0
    made: ExitMade | None = None
    shown: Shown | None = None
    ready_s: float = 0.0
    first_s: float | None = None
    upload_s: float = 0.0
    decode_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    encode_s: float = 0.0
    gmacs: float = 0.0
    cancelled_s: float | None = None
    last_exit_s: float | None = None
    view: View = field(init=False)

    def __post_init__(self) -> None:
        self.view = View.of(self.want)
        self.limits_move = bool(self.job.budget.schedule)

    @property
    def id(self) -> str:
        """Unique in the house."""
        return self.job.id

    @property
    def exits(self) -> int:
        """Exits that the model has."""
        return len(self.served.info.exits)

    @property
    def pixels(self) -> int:
        """H times W of the image."""
        return self.job.height * self.job.width

    @property
    def unseen(self) -> bool:
        """An exit has been made that is not a picture yet."""
        return self.exit > (self.shown.made.exit if self.shown else 0)

    def wants_picture(self, ending: Ending | None = None) -> bool:
        """Whether its last exit should be made into a picture now.

        Args:
            ending: its end; None while it goes on.
        """
        if self.discarded or not self.unseen or isinstance(ending, Failed):
            return False
        return ending is not None or self.want.progress
