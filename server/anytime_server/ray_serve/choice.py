"""Which of several replicas gets a request: the less loaded of two drawn at random.

Loads are predicted seconds of work, which replicas tell from time to time. What was sent to one
since it last told counts as well, so that not all go to whoever was idle then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
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
        sent: requests that it was sent since.
    """

    number: float = -1.0
    load_s: float = 0.0
    request_s: float = 0.0
    sent: int = 0

    @property
    def now_s(self) -> float:
        return self.load_s + self.sent * (self.request_s or _UNKNOWN_S)


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
        known = self._loads.get(replica)
        if known is None or known.number != number:
            self._loads[replica] = _Load(number, load_s, request_s)

    def sent(self, replica: str) -> None:
        """A request was sent to a replica."""
        self._loads.setdefault(replica, _Load()).sent += 1

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets all others."""
        self._loads = {name: self._loads[name] for name in replicas if name in self._loads}

    def rank(self, replicas: Sequence[str], draw: Callable[[int], int]) -> list[str]:
        """Two of them in the order in which they are to be asked.

        Args:
            replicas: at least one.
            draw: a number below another at random.
        """
        if len(replicas) == 1:
            return [replicas[0]]
        first = draw(len(replicas))
        second = (first + 1 + draw(len(replicas) - 1)) % len(replicas)
        two = [replicas[first], replicas[second]]
        return sorted(two, key=lambda name: self._loads.get(name, _Load()).now_s)
