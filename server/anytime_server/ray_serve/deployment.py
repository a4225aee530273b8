"""The deployment on Ray Serve: each replica is a whole server with an engine of its own.

A websocket ends in the process that owns the scheduler, so that budgets and cancels never wait for
Ray. Ray's own queue of requests is never full: the scheduler refuses, which knows deadlines.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from anytime_server import logs, tracing
from anytime_server.app import create_app
from anytime_server.engine.base import EngineState
from anytime_server.engine.local import LocalEngine
from anytime_server.executor.process import process_executors
from anytime_server.ray_serve import membership
from anytime_server.ray_serve.application import (
    ForwardedAnswer,
    ForwardedRequest,
    ReplicaApplication,
)
from anytime_server.ray_serve.served import WINDOW_S, ServedMetrics
from anytime_server.ray_serve.settings import NAME, RaySettings
from anytime_server.settings import Settings

logger = logging.getLogger(__name__)

_MOST_ONGOING: Final = 100_000
"""Requests and websockets that Ray hands to a replica at a time: more than it ever admits."""

_STATS_S: Final = 0.5
"""Between two statements of a replica's load."""

_FORWARD_S: Final = 5.0
"""Longest wait for other replicas."""

_NOTICE_S: Final = 1.0
"""From the news that a replica is to go until it drains, in which proxies hear it as well."""

_END_S: Final = 20.0
"""What Ray gives a replica beyond its own longest drain before it is killed."""


class _Peers:
    """All replicas of this deployment, asked by Ray's handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def forward(self, request: ForwardedRequest) -> list[ForwardedAnswer]:
        """See `Peers`; a replica that has died meanwhile has no answer."""
        broadcast = self._handle.broadcast("answer", request)
        found = await broadcast.results_async(timeout_s=_FORWARD_S, return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                logger.warning("a replica could not be asked: %s", error)
        return [answer for answer in found if isinstance(answer, ForwardedAnswer)]


@serve.ingress()
class Replica:
    """One server.

    Args:
        chosen: names and values of settings, in JSON.
    """

    def __init__(self, chosen: SecretStr) -> None:
        settings = Settings(**json.loads(chosen.get_secret_value()))
        logs.configure(settings.log_level, as_json=settings.log_json)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # each request to this replica
        context = serve.get_replica_context()
        self._name = context.replica_tag
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        executors = process_executors(settings)
        self._metrics = ServedMetrics(len(executors), time.monotonic)
        self._traces = tracing.from_environment()
        self._engine = LocalEngine(executors, self._metrics, settings)
        app = create_app(settings, self._engine, self._metrics, self._traces)
        self._application = ReplicaApplication(app, self._name, _Peers(handle.options()))
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._was_listed = False
        self._draining: asyncio.Task[None] | None = None
        membership.listen(self._note_members)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """See Ray."""
        return self._application

    async def answer(self, request: ForwardedRequest) -> ForwardedAnswer | None:
        """What another replica asks; see `ReplicaApplication.answer`."""
        return await self._application.answer(request)

    async def check_health(self) -> None:
        """See Ray: an error has it replaced."""
        if self._engine.state in {EngineState.DRAINING, EngineState.CLOSED}:
            raise RuntimeError(f"the engine is {self._engine.state.value}")

    async def record_routing_stats(self) -> dict[str, float]:
        """See Ray, and `LoadRouter`."""
        return {
            "number": float(next(self._numbers)),
            "load_s": self._engine.server_budget().load_s or 0.0,
            "request_s": self._metrics.mean_compute_s(),
        }

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See Ray, and `autoscaling.by_quality`."""
        return asdict(self._metrics.served())

    def _note_members(self, replicas: Collection[str]) -> None:
        """Begins to drain when Ray routes to this replica no more. Called on any thread."""
        if self._name in replicas:
            self._was_listed = True
        elif self._was_listed:
            self._was_listed = False
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await asyncio.sleep(_NOTICE_S)
        if self._was_listed:  # again: it was no farewell
            self._draining = None
            return
        await self._application.drain()


def application(settings: RaySettings) -> Application:
    """The application, to be run by Ray Serve.

    Args:
        settings: the operator's choices.
    """
    least, most = settings.replica_range
    scaling: dict[str, Any] = {"num_replicas": least}
    if most > least:
        scaling = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=least,
                max_replicas=most,
                look_back_period_s=WINDOW_S + 1,
                # What was served by fewer replicas is forgotten before more are added.
                upscale_delay_s=1.5 * WINDOW_S,
                downscale_delay_s=12 * WINDOW_S,
                policy=AutoscalingPolicy(
                    policy_function="anytime_server.ray_serve.autoscaling:by_quality"
                ),
            )
        }
    deployment = serve.deployment(
        Replica,
        name=NAME,
        max_ongoing_requests=_MOST_ONGOING,
        graceful_shutdown_wait_loop_s=2 * _NOTICE_S,
        graceful_shutdown_timeout_s=settings.drain_timeout_s + _END_S,
        max_surge_percent=100,
        max_constructor_retry_count=2,
        ray_actor_options={"num_cpus": settings.threads or 1},
        request_router_config=RequestRouterConfig(
            request_router_class="anytime_server.ray_serve.router:LoadRouter",
            request_routing_stats_period_s=_STATS_S,
        ),
        logging_config={"enable_access_log": False},
        **scaling,
    )
    # In one value whose text is hidden wherever Ray may show arguments, as tokens are among them.
    chosen = {name: getattr(settings, name) for name in Settings.model_fields}
    return deployment.bind(SecretStr(json.dumps(chosen, default=_plain)))


def _plain(value: SecretStr | Path) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def build(arguments: dict[str, Any]) -> Application:
    """The application by the `args` of a Serve configuration; see `deploy/serve.yaml`.

    Args:
        arguments: names and values of settings.
    """
    return application(RaySettings(**arguments))
