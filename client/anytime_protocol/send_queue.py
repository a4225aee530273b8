"""What waits to be sent to a slow reader: the newest update of each request, and all the rest.

Decides what is sent next and what is thrown away: a request has one slot for an update, and a newer
one replaces an older one that still waits there, because a reader that is behind wants the best map
and not the history. Replaced updates are counted, so that the one that is sent can say how many it
stands for. Everything else, the terminal message above all, is kept and kept in order.

It does not know what an update is. A server puts in something cheap (an exit's tensors, not their
encoding), so that only what is really sent is ever encoded. No clock, no task, no lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Waiting(Generic[_Item]):
    """One thing to be sent.

    Attributes:
        request_id: which request it is about.
        item: what was put in.
        skipped: updates of the request that this one replaced; 0 for everything else.
        terminal: whether the request is over with it.
    """

    request_id: str
    item: _Item
    skipped: int = 0
    terminal: bool = False


@dataclass(slots=True, eq=False)
class _Place(Generic[_Item]):
    """A place in the line; an empty one is passed over."""

    waiting: Waiting[_Item] | None


class SendQueue(Generic[_Item]):
    """The line of one connection, over all its requests."""

    def __init__(self) -> None:
        self._line: deque[_Place[_Item]] = deque()
        self._slots: dict[str, _Place[_Item]] = {}
        self._followed: set[str] = set()
        self._over: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        """How many things wait."""
        return self._count

    def update(self, request_id: str, item: _Item) -> int:
        """Puts in an update, in place of one of the same request that still waits.

        It keeps the place in the line, so that no fast request is put off by its own haste; but
        if something else of its request has been put in since, it goes behind that, so that a
        request's messages are never reordered.

        Returns:
            How many updates it stands for beside itself.

        Raises:
            ValueError: the request's terminal message is in already.
        """
        self._check_open(request_id)
        slot = self._slots.get(request_id)
        if slot is None or slot.waiting is None:
            self._slots[request_id] = self._append(Waiting(request_id, item))
            return 0
        waiting = Waiting(request_id, item, slot.waiting.skipped + 1)
        if request_id in self._followed:
            slot.waiting = None
            self._count -= 1
            self._followed.discard(request_id)
            self._slots[request_id] = self._append(waiting)
        else:
            slot.waiting = waiting
        return waiting.skipped

    def put(self, request_id: str, item: _Item, *, terminal: bool = False) -> None:
        """Puts in something that must be sent, behind all that waits.

        Args:
            request_id: which request it is about.
            item: what to send.
            terminal: whether the request is over with it; then nothing more may be put in for it
                until it has been taken out.

        Raises:
            ValueError: the request's terminal message is in already.
        """
        self._check_open(request_id)
        self._append(Waiting(request_id, item, terminal=terminal))
        if request_id in self._slots:
            self._followed.add(request_id)
        if terminal:
            self._over.add(request_id)

    def take(self) -> Waiting[_Item] | None:
        """Takes out what is to be sent next, or None if nothing waits."""
        while self._line:
            place = self._line.popleft()
            waiting = place.waiting
            if waiting is None:
                continue
            self._count -= 1
            if self._slots.get(waiting.request_id) is place:
                del self._slots[waiting.request_id]
                self._followed.discard(waiting.request_id)
            if waiting.terminal:
                self._over.discard(waiting.request_id)
            return waiting
        return None

    def _append(self, waiting: Waiting[_Item]) -> _Place[_Item]:
        place = _Place(waiting)
        self._line.append(place)
        self._count += 1
        return place

    def _check_open(self, request_id: str) -> None:
        if request_id in self._over:
            raise ValueError(f"request {request_id} is over: its terminal message waits to be sent")
