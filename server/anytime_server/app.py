"""The application: everything put together, once.

`create_app` is, with `cli`, the only place where concrete things are made. It decides what belongs
together and in which order things start and end; it does no work itself before the server runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from anytime_server import images
from anytime_server.api import page
from anytime_server.api import predict as http_predict
from anytime_server.api import problems as http_problems
from anytime_server.api import requests as http_requests
from anytime_server.api import service_routes as http_service
from anytime_server.api import websocket as ws
from anytime_server.api.asyncapi import server_version
from anytime_server.engine.service import Service
from anytime_server.executor.base import Executor
from anytime_server.heap import keep_what_is_freed, spare_what_stays
from anytime_server.settings import Settings


def create_app(settings: Settings, executor: Executor) -> FastAPI:
    """The ASGI application; its service is `app.state.service`.

    Args:
        settings: the operator's choices.
        executor: computes; started and closed by the application.
    """
    service = Service(settings, executor)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        images.take_over_size_check()
        keep_what_is_freed()
        await service.open()
        spare_what_stays()  # while the executor loads its models
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="Anytime dense prediction",
        version=server_version(),
        description="A map at every exit, within a budget that may change. See docs/PROTOCOL.md.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    http_problems.install(app)
    app.include_router(http_predict.router)  # routes are tried in order, and this one is in a hurry
    app.include_router(http_service.public)
    app.include_router(http_service.router)
    app.include_router(http_requests.router)
    app.include_router(ws.router)
    folder = page.find(settings.page)
    if folder is not None:
        app.router.routes.extend(page.routes(folder))
    return app
