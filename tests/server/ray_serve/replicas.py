"""Replicas without Ray: applications with fake executors that ask one another directly."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from anytime_server.app import create_app
from anytime_server.engine.local import LocalEngine
from anytime_server.metrics import Metrics
from anytime_server.ray_serve.application import ReplicaApplication
from anytime_server.settings import Settings
from server.fakes import FakeExecutor


class DirectPeers:
    """Asks the applications of this process; `is_silent` makes one that never answers."""

    def __init__(self):
        self.applications = []
        self.forwarded = []
        self.is_silent = False

    async def forward(self, request):
        self.forwarded.append(request)
        if self.is_silent:
            raise TimeoutError
        answers = [await application.answer(request) for application in self.applications]
        return [answer for answer in answers if answer is not None]


@dataclass
class RunningReplica:
    """One replica, and a client for it."""

    application: ReplicaApplication
    engine: LocalEngine
    executor: FakeExecutor
    http: httpx.AsyncClient


class Lifespan:
    """What a server does at the start and the end of an application."""

    def __init__(self, application):
        self.sent = asyncio.Queue()
        self._received = asyncio.Queue()
        self._received.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.ensure_future(
            application({"type": "lifespan", "state": {}}, self._received.get, self.sent.put)
        )

    async def end(self):
        self._received.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([self._task])


@asynccontextmanager
async def running_replicas(count=2, **settings):
    """So many replicas that know one another, and what they ask with."""
    peers = DirectPeers()
    async with AsyncExitStack() as stack:
        yield (
            [await stack.enter_async_context(_one(f"r{k}", peers, settings)) for k in range(count)],
            peers,
        )


@asynccontextmanager
async def _one(name, peers, settings):
    chosen, executor = Settings(log_level="warning", **settings), FakeExecutor()
    metrics = Metrics()
    engine = LocalEngine([executor], metrics, chosen)
    app = create_app(chosen, engine, metrics)
    application = ReplicaApplication(app, name, peers)
    peers.applications.append(application)
    life = Lifespan(application)
    assert (await life.sent.get())["type"] == "lifespan.startup.complete"
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        try:
            yield RunningReplica(application, engine, executor, http)
        finally:
            executor.gate.set()
            await life.end()
