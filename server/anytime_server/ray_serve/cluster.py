"""Starts Ray here, or joins it elsewhere, and runs the application until a signal ends it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from typing import Final

import ray
from ray import serve
from ray.serve import Application

from anytime_server import logs
from anytime_server.executor.cores import total_threads
from anytime_server.ray_serve.settings import NAME, RaySettings

logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES: Final = 256 * 2**20
"""Ray's shared memory on this machine: uploads pass it, in pieces."""


def serve_until_signal(
    settings: RaySettings, application: Callable[[RaySettings], Application]
) -> None:
    """Runs an application, and takes it away in the end with its last answers given.

    Args:
        settings: the operator's choices.
        application: makes it of them.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    over = threading.Event()
    if settings.address:
        ray.init(address=settings.address, log_to_driver=False)
    else:
        settings = _start_here(settings)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    try:
        serve.start(
            http_options={"host": settings.host, "port": settings.port}, proxy_location="EveryNode"
        )
        serve.run(application(settings), name=NAME, route_prefix="/")
        logger.info("ready at http://%s:%d", settings.host, settings.port)
        over.wait()
        logger.info("draining: no more requests are admitted")
        serve.delete(NAME)
    finally:
        if not settings.address:
            serve.shutdown()
        ray.shutdown()


def _start_here(settings: RaySettings) -> RaySettings:
    """Starts Ray on this machine, with room for an update: twice as many replicas."""
    threads = settings.threads_each(total_threads(0))
    _, most = settings.replica_range
    ray.init(
        num_cpus=2 * most * threads,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
    )
    return settings.model_copy(update={"threads": threads})
