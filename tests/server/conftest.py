"""A whole server without a network: real sockets, a fake executor, all on one event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from blockbuster import blockbuster_ctx
from fastapi import FastAPI

from anytime_server.app import create_app
from anytime_server.engine.service import Service
from anytime_server.serving import Server, uvicorn_config
from anytime_server.settings import Settings
from server.server_fakes import FakeExecutor


@dataclass
class Live:
    """A running server."""

    app: FastAPI
    server: Server
    executor: FakeExecutor
    http: httpx.AsyncClient
    port: int

    @property
    def service(self) -> Service:
        return self.app.state.service

    @property
    def stream(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"


@asynccontextmanager
async def serving(
    executor: FakeExecutor | None = None, *, wait: bool = True, **settings: object
) -> AsyncIterator[Live]:
    executor = executor or FakeExecutor()
    chosen = Settings(port=0, log_level="warning", **settings)
    app = create_app(chosen, executor)
    server = Server(uvicorn_config(app, chosen), app.state.service)
    server.capture_signals = _no_signals  # the test runner's signals are not ours
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    if wait:
        await app.state.service.wait_ready()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False, timeout=10
        ) as http:
            with blockbuster_ctx():
                yield Live(app, server, executor, http, port)
    finally:
        executor.gate.set()
        server.should_exit = True
        await task


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with serving() as running:
        yield running


@pytest.fixture
def serve() -> Callable[..., object]:
    return serving


class _NoSignals:
    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


def _no_signals() -> _NoSignals:
    return _NoSignals()
