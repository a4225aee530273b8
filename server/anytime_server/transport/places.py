"""Places for TCP connections: so many, and a reserve in which only health is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_RESERVE: Final = 64
"""Connections beyond the limit, whose requests are answered with 503, or about health."""


class Place:
    """What one connection has of `Places`.

    Args:
        places: all of them.
        close: ends the connection.
    """

    def __init__(self, places: Places, close: Callable[[], None]) -> None:
        self._places = places
        self.close = close

    @property
    def is_inside(self) -> bool:
        """Whether the connection is one of those that are served; it may come to be one."""
        return self._places.is_inside(self)

    def leave(self) -> None:
        """The connection has ended; of no effect the second time."""
        self._places.leave(self)


class Places:
    """Who came first keeps their place, however many come later.

    Args:
        most: connections that are served.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._inside: set[Place] = set()
        self._reserve: dict[Place, None] = {}

    def take(self, close: Callable[[], None]) -> Place:
        """A place for a new connection; where even the reserve is full, its oldest one is closed.

        Args:
            close: ends the connection.
        """
        place = Place(self, close)
        if len(self._inside) < self.most:
            self._inside.add(place)
            return place
        if len(self._reserve) >= _RESERVE:
            oldest = next(iter(self._reserve))
            self.leave(oldest)
            oldest.close()
        self._reserve[place] = None
        return place

    def is_inside(self, place: Place) -> bool:
        """See `Place.is_inside`."""
        if place in self._reserve and len(self._inside) < self.most:
            del self._reserve[place]
            self._inside.add(place)
        return place in self._inside

    def leave(self, place: Place) -> None:
        """See `Place.leave`."""
        self._inside.discard(place)
        self._reserve.pop(place, None)
