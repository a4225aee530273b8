"""The application: routes over an engine, and what starts and ends with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from anytime_protocol.http import headers
from anytime_server import images
from anytime_server.api import openapi, page, predict, problems, requests, resources, websocket
from anytime_server.api.access import Access, is_loopback
from anytime_server.api.asyncapi import server_version
from anytime_server.api.messages import MessageWriter
from anytime_server.api.quotas import Caller
from anytime_server.api.request_checks import RequestChecks
from anytime_server.api.state import ApiState
from anytime_server.api.uploads import Uploads
from anytime_server.api.v2 import routes as v2
from anytime_server.engine.base import Engine
from anytime_server.metrics import Metrics
from anytime_server.process_memory import exclude_from_collection, keep_freed_memory
from anytime_server.settings import Settings
from anytime_server.tokens import read_tokens
from anytime_server.tracing import Tracing

logger = logging.getLogger(__name__)

_EXPOSED: Final = (
    headers.REQUEST_ID,
    headers.DEADLINE_APPLIED,
    headers.PREFERENCE_APPLIED,
    headers.RESULT,
    headers.SERVER_TIMING,
    "Inference-Header-Content-Length",
    "Retry-After",
)
"""Headers of answers that pages of other origins may read."""

_LAG_S: Final = 0.1
"""Between two measurements of the event loop's lag."""


def create_app(
    settings: Settings, engine: Engine, metrics: Metrics, tracing: Tracing | None = None
) -> FastAPI:
    """The ASGI application; its `ApiState` is `app.state.api`.

    Args:
        settings: the operator's choices.
        engine: computes requests; opened and closed by the application.
        metrics: that the engine counts in.
        tracing: records requests; closed by who made it.
    """
    token, operator_token = settings.token, settings.operator_token
    named = {} if settings.tokens is None else read_tokens(settings.tokens)
    callers = {entry.token.get_secret_value(): Caller(name, entry) for name, entry in named.items()}
    access = Access(
        token.get_secret_value() if token else None,
        operator_token.get_secret_value() if operator_token else None,
        settings.allowed_origins,
        callers,
        loopback_only=token is None and not callers and is_loopback(settings.host),
    )
    state = ApiState(
        settings,
        engine,
        metrics,
        access,
        MessageWriter(engine),
        Uploads(settings.max_upload_bytes),
        tracing,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        images.configure_pillow()
        keep_freed_memory()
        engine.open()
        lag = asyncio.create_task(_measure_lag(metrics))
        exclude_from_collection()  # while the executor loads its models
        try:
            yield
        finally:
            lag.cancel()
            with suppress(asyncio.CancelledError):
                await lag
            await engine.close()
            state.messages.close()

    app = FastAPI(
        title="Anytime dense prediction",
        version=server_version(),
        description="A map at every exit, within a budget that may change. See docs/PROTOCOL.md.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name whatever host the request names
    )
    app.state.api = state
    app.add_middleware(RequestChecks, access, engine.clock)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(access.origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=_EXPOSED,
        )
    problems.install(app)
    for module in (predict, resources, requests, websocket, v2):  # matched in this order
        app.include_router(module.router)
    for module in (resources, v2):
        app.include_router(module.public)
    openapi.install(app)
    folder = page.find(settings.page)
    if folder is None:
        logger.warning(
            "no page is served: found no index.html in %s", settings.page or "the package"
        )
    else:
        app.router.routes.extend(page.routes(folder))
    return app


async def _measure_lag(metrics: Metrics) -> None:
    """Measures how late a timer is: what every client of this event loop waits."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_S
        await asyncio.sleep(_LAG_S)
        metrics.lagged(max(loop.time() - due, 0.0))
