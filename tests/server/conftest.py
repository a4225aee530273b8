"""A whole server without a network: real sockets, a fake executor, all on one event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

import httpx
import pytest
from blockbuster import blockbuster_ctx

from anytime_server.api.state import ApiState
from anytime_server.app import create_app
from anytime_server.engine.local import LocalEngine
from anytime_server.metrics import Metrics
from anytime_server.serving import Server, uvicorn_config
from anytime_server.settings import Settings
from anytime_server.tracing import Tracing
from server.fakes import FakeExecutor


@dataclass
class RunningServer:
    """A server on a free port, and a client for it."""

    state: ApiState
    server: Server
    executor: FakeExecutor
    http: httpx.AsyncClient
    port: int

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"


class QuickServer(Server):
    """Looks whether it is to end more often than uvicorn does, which is every 100 ms."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.002)
            await self.on_tick(0)


@asynccontextmanager
async def running_server(
    executor: FakeExecutor | None = None,
    *,
    wait: bool = True,
    tracing: Tracing | None = None,
    **settings: object,
) -> AsyncIterator[RunningServer]:
    executor = executor or FakeExecutor()
    chosen = Settings(port=0, log_level="warning", **settings)
    metrics = Metrics()
    app = create_app(chosen, LocalEngine([executor], metrics, chosen), metrics, tracing)
    state = app.state.api
    server = QuickServer(uvicorn_config(app, chosen), state)
    server.capture_signals = nullcontext  # the test runner's signals are not ours
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    if wait:
        await state.engine.wait_ready()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False, timeout=10
        ) as http:
            with blockbuster_ctx():
                yield RunningServer(state, server, executor, http, port)
    finally:
        executor.gate.set()
        server.should_exit = True
        await task


@pytest.fixture
async def live() -> AsyncIterator[RunningServer]:
    async with running_server() as running:
        yield running


@pytest.fixture
def serve() -> Callable[..., object]:
    return running_server
