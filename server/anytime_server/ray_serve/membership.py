"""Which replicas Ray Serve routes to, for the replica in whose process this is.

Ray calls nothing of a replica's when it is about to stop it: it first waits until its last request
has ended, and a websocket is one. But a router in the replica's process hears of every change, and
tells it here; Ray makes routers by itself, so that what they share with a replica is the module's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

_listeners: list[Callable[[Collection[str]], None]] = []


def listen(listener: Callable[[Collection[str]], None]) -> None:
    """Has a function called with the names of all replicas, whenever they change, on any thread."""
    _listeners.append(listener)


def changed(replicas: Collection[str]) -> None:
    """These are all that are routed to."""
    for listener in _listeners:
        listener(replicas)
