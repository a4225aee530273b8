"""The send queue of one connection: the newest update of each request, and all other messages.

A request has one slot for an update, and a newer update replaces one that still waits there,
because a slow reader wants the best map and not the history. Replaced updates are counted, so that
the one that is sent can say how many it stands for. Everything else, the terminal message above
all, is kept and stays in order.

An item can be anything. A server puts in something cheap (an exit's tensors, not their encoding),
so that only what is sent is ever encoded. The queue has no clock, no task and no lock.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class QueuedItem(Generic[_Item]):
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


class SendQueue(Generic[_Item]):
    """The queue of one connection, over all its requests."""

    def __init__(self) -> None:
        self._numbers = count()
        self._items: OrderedDict[int, QueuedItem[_Item]] = OrderedDict()
        self._updates: dict[str, int] = {}
        self._followed: set[str] = set()
        self._ended: set[str] = set()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)

    def update(self, request_id: str, item: _Item) -> int:
        """Puts in an update, in place of one of the same request that still waits.

        It keeps the older one's position, so that a fast request does not fall behind the others;
        but if something else of its request was put in since, it goes behind that, so that a
        request's messages are never reordered.

        Returns:
            How many updates it stands for beside itself.

        Raises:
            ValueError: the request's terminal message is in already.
        """
        self._check_open(request_id)
        number = self._updates.get(request_id)
        skipped = 0 if number is None else self._items[number].skipped + 1
        if number is not None and request_id in self._followed:
            del self._items[number]
            self._followed.discard(request_id)
            number = None
        if number is None:
            number = next(self._numbers)
        self._updates[request_id] = number
        self._items[number] = QueuedItem(request_id, item, skipped)
        return skipped

    def put(
        self, request_id: str, item: _Item, *, terminal: bool = False, seals: bool = False
    ) -> None:
        """Puts in something that must be sent, behind all that waits.

        Args:
            request_id: which request it is about.
            item: what to send.
            terminal: whether the request is over with it; then nothing more may be put in for it
                until it has been taken out.
            seals: whether an update that waits is kept from now on, because later ones are of
                another frame.

        Raises:
            ValueError: the request's terminal message is in already.
        """
        self._check_open(request_id)
        self._items[next(self._numbers)] = QueuedItem(request_id, item, terminal=terminal)
        if seals:
            self._updates.pop(request_id, None)
            self._followed.discard(request_id)
        elif request_id in self._updates:
            self._followed.add(request_id)
        if terminal:
            self._ended.add(request_id)

    def take(self) -> QueuedItem[_Item] | None:
        """Takes out what is to be sent next, or None if nothing waits."""
        if not self._items:
            return None
        number, queued = self._items.popitem(last=False)
        if self._updates.get(queued.request_id) == number:
            del self._updates[queued.request_id]
            self._followed.discard(queued.request_id)
        if queued.terminal:
            self._ended.discard(queued.request_id)
        return queued

    def _check_open(self, request_id: str) -> None:
        if request_id in self._ended:
            raise ValueError(f"request {request_id} is over: its terminal message waits to be sent")
