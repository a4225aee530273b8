"""Which of several replicas gets a request: the less loaded of two drawn at random.

Loads are predicted seconds of work, which replicas tell from time to time. What was sent to one
lately and has not ended counts as well, from the moment of the choice, so that requests that come
together do not all go to whoever was idle then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

_UNKNOWN_S: Final = 0.1
"""Taken for the seconds of work of a request where a replica has answered none lately."""


@dataclass(slots=True)
class _Load:
    """What is known of one replica.

    Attributes:
        number: of its last statement.
        load_s: predicted seconds of the work of its requests then.
        request_s: seconds of work that one request is, on average; 0 where none was answered
            lately.
        sent: ids of requests that it was sent since the statement was heard.
        sent_before: of those sent since the one before. They are counted, too, as the statement may
            have been made before they arrived.
    """

    number: float = -1.0
    load_s: float = 0.0
    request_s: float = 0.0
    sent: set[str] = field(default_factory=set)
    sent_before: set[str] = field(default_factory=set)

    @property
    def now_s(self) -> float:
        sent = len(self.sent) + len(self.sent_before)
        return self.load_s + sent * (self.request_s or _UNKNOWN_S)


class Loads:
    """The loads of replicas by their names, as far as one proxy knows them."""

    def __init__(self) -> None:
        self._loads: dict[str, _Load] = {}

    def tell(self, replica: str, number: float, load_s: float, request_s: float) -> None:
        """A replica's statement of its load; one that was heard before changes nothing.

        Args:
            replica: its name.
            number: of the statement, another for each.
            load_s: predicted seconds of the work of its requests.
            request_s: seconds of work that one request is, on average; 0 where none was answered
                lately.
        """
        known = self._loads.get(replica, _Load())
        if known.number != number:
            self._loads[replica] = _Load(number, load_s, request_s, sent_before=known.sent)

    def choose(
        self, request: str, replicas: Sequence[str], draw: Callable[[int], int]
    ) -> list[str]:
        """Two replicas in the order in which they are to be asked; the first counts as sent to.

        Args:
            request: its id.
            replicas: at least one.
            draw: a number below another at random.
        """
        first = draw(len(replicas))
        two = [replicas[first]]
        if len(replicas) > 1:
            two.append(replicas[(first + 1 + draw(len(replicas) - 1)) % len(replicas)])
        two.sort(key=lambda name: self._loads.get(name, _Load()).now_s)
        self._loads.setdefault(two[0], _Load()).sent.add(request)
        return two

    def ended(self, request: str, replica: str) -> None:
        """A request that was sent to a replica has ended."""
        load = self._loads.get(replica, _Load())
        load.sent.discard(request)
        load.sent_before.discard(request)

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets all others."""
        self._loads = {name: self._loads[name] for name in replicas if name in self._loads}
