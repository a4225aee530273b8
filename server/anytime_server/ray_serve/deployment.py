"""One replica: the whole application, its engine and executors inside a process of Ray Serve."""

from __future__ import annotations

from typing import Any

from ray import serve
from starlette.types import ASGIApp

from anytime_server import logs
from anytime_server.app import create_app
from anytime_server.composition import local_engine
from anytime_server.metrics import Metrics
from anytime_server.settings import Settings


@serve.ingress()
class AnytimeReplica:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        metrics = Metrics()
        engine = local_engine(self._settings, metrics)
        app = create_app(self._settings, engine, metrics)

        async def wrapped(scope, receive, send):
            if scope["type"] == "lifespan":
                async def send2(m):
                    if m["type"] == "lifespan.startup.complete":
                        await engine.wait_ready()
                    await send(m)
                return await app(scope, receive, send2)
            return await app(scope, receive, send)
        return wrapped
