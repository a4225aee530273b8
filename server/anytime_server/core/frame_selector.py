"""Which frame of a stream is computed next, and when: the latest wins.

At most one frame is under way and one waits; a newer one takes the place of the one that waits.
After a frame the next begins as soon as the stream's share of the machine's time allows, and only
while no more than one end of a frame waits to be sent. Time is an argument, in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

from anytime_protocol.enums import CloseReason


@dataclass(frozen=True, slots=True)
class BeginFrame:
    """Begin the frame that waits; it is under way now.

    Attributes:
        number: of the frame.
    """

    number: int


@dataclass(frozen=True, slots=True)
class EndStream:
    """The stream is over, and nothing of it is under way."""

    reason: CloseReason


@dataclass(frozen=True, slots=True)
class AwaitChange:
    """Do nothing until something happens, at the latest until `until_s`; infinity for no end."""

    until_s: float = math.inf


NextOfStream: TypeAlias = BeginFrame | EndStream | AwaitChange


@dataclass(slots=True)
class FrameSelector:
    """Selects the frames of one stream, and counts what became of them.

    Attributes:
        share: of the machine's time that it may take, more than 0, at most 1.
        waiting: number of the frame that waits; None if none does.
        under_way: number of the frame that is under way.
        begins_s: before this moment no frame begins.
        unsent: ends of frames that have not been sent.
        frames: that ended well.
        skipped: that were passed over.
        failed: that ended in an error.
        closing: why it ends; None while it goes on.
        has_ended: `EndStream` was decided.
    """

    share: float = 1.0
    waiting: int | None = None
    under_way: int | None = None
    begins_s: float = -math.inf
    unsent: int = 0
    frames: int = 0
    skipped: int = 0
    failed: int = 0
    closing: CloseReason | None = None
    has_ended: bool = False
    _counted: int = field(default=0, init=False)

    def arrived(self, number: int) -> bool:
        """A frame has come and waits; whether it has taken the place of another."""
        replaces = self.waiting is not None
        self.skipped += replaces
        self.waiting = number
        return replaces

    def decide(self, now: float) -> NextOfStream:
        """What to do now; after an `AwaitChange` ask again when something has happened."""
        if self.under_way is not None or self.has_ended:
            return AwaitChange()
        if self.waiting is None:
            if self.closing is None:
                return AwaitChange()
            self.has_ended = True
            return EndStream(self.closing)
        if self.unsent > 1:
            return AwaitChange()
        if now < self.begins_s:
            return AwaitChange(self.begins_s)
        self.under_way, self.waiting = self.waiting, None
        return BeginFrame(self.under_way)

    def postpone(self, until_s: float) -> bool:
        """The frame under way could not begin: it waits again, unless a newer one does.

        Returns:
            Whether it was passed over for a newer one.
        """
        number, self.under_way = self.under_way, None
        self.begins_s = max(self.begins_s, until_s)
        if self.closing in {None, CloseReason.CLOSED} and self.waiting is None:
            self.waiting = number
            return False
        self.skipped += 1
        return True

    def ended(self, computed_s: float, now: float, *, failed: bool) -> None:
        """The frame under way has ended after so much of the machine's time."""
        self.under_way = None
        self.unsent += 1
        if failed:
            self.failed += 1
        else:
            self.frames += 1
        self.begins_s = max(self.begins_s, now + computed_s * (1.0 / self.share - 1.0))

    def end_sent(self) -> int:
        """The end of a frame is sent; how many were passed over since the one before it."""
        self.unsent -= 1
        counted, self._counted = self._counted, self.skipped
        return self.skipped - counted

    def close(self, reason: CloseReason) -> bool:
        """No more frames come. Unless the client has merely closed it, none that waits is begun.

        Returns:
            Whether a frame that waited was passed over.
        """
        if self.closing in {None, CloseReason.CLOSED}:
            self.closing = reason
        drops = self.closing is not CloseReason.CLOSED and self.waiting is not None
        if drops:
            self.waiting = None
            self.skipped += 1
        return drops
