"""Many requests on a real Ray Serve whose replicas are killed, added, taken away and replaced.

`make test-ray-chaos` makes its environment and runs this with 10,000 requests.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from anytime_protocol.codec import ANSWER_LIMITS, FrameKind, decode_binary, encode_binary
from anytime_protocol.enums import PROTOCOL, CloseCode
from ecosystem.environments import is_complete
from ecosystem.ray_cluster import ray_server, until_there_are
from model.factories import save_tiny
from system.long_requests import PREDICT, STREET

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not is_complete("ray"), reason="no environment: make test-ray-chaos makes it, and runs this"
    ),
]
HTTP_CLIENTS, WEBSOCKETS, IN_FLIGHT = 12, 3, 8
"""One request at a time over each of the first, and so many over each websocket."""

WAITS = {"max_exit": 1, "schedule": [{"at_ms": 300, "max_exit": 4}]}
"""A budget that leaves a request at exit 1 for a while, so that a kill hits many."""


@dataclass
class Asked:
    """One request, and what became of it.

    Attributes:
        transport: http or websocket.
        began_s: when it was sent.
        ended_s: when its first terminal message came, or its connection broke.
        terminals: of the terminal messages that came `final`, or the code of the error.
        broken: how its connection broke before one came; None if it did not.
    """

    transport: str
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0
    terminals: list = field(default_factory=list)
    broken: str | None = None

    def end(self, terminal):
        self.terminals.append(terminal)
        self.ended_s = self.ended_s or time.monotonic()

    def breaks(self, error):
        self.broken, self.ended_s = repr(error), time.monotonic()

    @property
    def is_answered(self):
        return self.terminals == ["final"] and self.broken is None

    @property
    def is_refused(self):
        """By a replica that goes, on a websocket that was never without requests until then."""
        return self.terminals == ["draining"] and self.broken is None


class Load:
    """Clients that ask without end, and all that they asked."""

    def __init__(self, url):
        self.url, self.asked = url, []
        self.sent_again = self.refused_sockets = 0
        self._image, self._numbers, self._over = STREET.read_bytes(), itertools.count(), False

    def stop(self):
        """Lets what was asked end."""
        self._over = True

    async def over_http(self):
        form = {
            "files": {"image": ("street.jpg", self._image, "image/jpeg")},
            "data": {"budget": json.dumps(WAITS)},
            "headers": {"Accept": "application/x-ndjson"},
        }
        async with httpx.AsyncClient(base_url=self.url, timeout=60, trust_env=False) as http:
            while not self._over:
                asked = self._ask("http")
                try:
                    answer = await http.post(PREDICT, **form)
                except httpx.HTTPError as error:
                    asked.breaks(error)
                    continue
                if answer.status_code != 200:
                    asked.end(f"{answer.status_code} {answer.text[:200]}")
                    continue
                for line in answer.text.splitlines():
                    if (message := json.loads(line))["type"] in {"final", "error"}:
                        asked.end(message.get("code", "final"))

    async def over_websockets(self):
        while not self._over:
            open_, done = {}, {}
            try:
                async with connect(
                    f"ws{self.url.removeprefix('http')}/v1/stream",
                    subprotocols=[PROTOCOL],
                    max_size=ANSWER_LIMITS.frame_bytes,
                    proxy=None,
                ) as socket:
                    await self._ask_on(socket, open_, done)
            except (InvalidHandshake, OSError):
                assert not open_
                self.refused_sockets += 1
                await asyncio.sleep(0.1)
            except ConnectionClosed as error:
                going = error.rcvd is not None and error.rcvd.code == CloseCode.GOING_AWAY
                for asked, was_read in open_.values():
                    if going and not was_read:  # its server had no part in it: it is asked anew
                        self.asked.remove(asked)
                        self.sent_again += 1
                    else:
                        asked.breaks(error)

    async def _ask_on(self, socket, open_, done):
        await socket.recv()  # ready
        is_closed = False
        while not self._over or open_:
            while not (self._over or is_closed) and len(open_) < IN_FLIGHT:
                name = str(next(self._numbers))
                head = {"type": "infer", "id": name, "model": "tiny", "budget": WAITS}
                head |= {"media_type": "image/jpeg"}
                open_[name] = [self._ask("websocket"), False]
                try:
                    await socket.send(encode_binary(FrameKind.INFER, head, self._image))
                except ConnectionClosed:  # which `recv` says again, after what came before
                    self.asked.remove(open_.pop(name)[0])
                    is_closed = True
            self._read(await socket.recv(), open_, done)
        await socket.send(json.dumps({"type": "ping", "nonce": 1}))
        while self._read(await socket.recv(), open_, done) != "pong":
            pass  # nothing else comes after the last terminal message

    def _read(self, message, open_, done):
        if isinstance(message, str):
            header = json.loads(message)
        else:
            _, header, _ = decode_binary(message, ANSWER_LIMITS)
        name, kind = header.get("id"), header["type"]
        if name in open_:
            open_[name][1] = True
        if kind in {"final", "error"}:
            if name in open_:
                done[name] = open_.pop(name)[0]
            done[name].end("final" if kind == "final" else header["code"])
        return kind

    def _ask(self, transport):
        self.asked.append(Asked(transport))
        return self.asked[-1]


async def changes_of(server, kills):
    """From one replica to three, one of them killed, all replaced, another killed, and back."""
    await asyncio.to_thread(server.redeploy, replicas="3")
    await asyncio.to_thread(until_there_are, server, 3)
    await kill_one(server, kills)
    await asyncio.to_thread(server.redeploy, patience_s=1.0 + random.random())
    await asyncio.to_thread(until_there_are, server, 3)
    await kill_one(server, kills)
    await asyncio.to_thread(server.redeploy, replicas="1")
    await asyncio.to_thread(until_there_are, server, 1)


async def kill_one(server, kills):
    """Kills a replica, and waits until Ray has started another."""
    await asyncio.sleep(2)
    killed = random.choice(server.replica_pids())
    kills.append(time.monotonic())
    os.kill(killed, signal.SIGKILL)
    await asyncio.sleep(1)
    await asyncio.to_thread(until_there_are, server, 3)


async def ask_while_replicas_change(server, wanted):
    """What was asked, and when replicas were killed, after so many requests or more."""
    load, kills, rounds = Load(server.url), [], 0
    ways = [load.over_http] * HTTP_CLIENTS + [load.over_websockets] * WEBSOCKETS
    clients = [asyncio.create_task(ask()) for ask in ways]
    try:
        while len(load.asked) < wanted:
            await changes_of(server, kills)
            rounds += 1
    finally:
        load.stop()
        await asyncio.gather(*clients)
    return load, kills, rounds


@pytest.mark.timeout(0)
def test_each_request_ends_once_and_only_those_of_killed_replicas_in_errors(
    tmp_path_factory, chaos_requests
):
    folder = tmp_path_factory.mktemp("weights")
    save_tiny(folder)
    with ray_server(folder, replicas="3") as server:  # Ray has room for twice as many
        server.redeploy(replicas="1")
        until_there_are(server, 1)
        load, kills, rounds = asyncio.run(ask_while_replicas_change(server, chaos_requests))

    ends = defaultdict(Counter)
    for asked in load.asked:
        ends[asked.transport][" ".join(asked.terminals) or asked.broken] += 1
    for transport, counts in ends.items():
        print(transport, dict(counts))
    print(f"{len(load.asked)} requests, {rounds} rounds, {len(kills)} kills")
    print(f"{load.sent_again} were sent again, as their server closed before it had read them")
    print(f"{load.refused_sockets} websockets were refused")

    assert len(load.asked) >= chaos_requests
    ended_otherwise = [
        asked for asked in load.asked if len(asked.terminals) + (asked.broken is not None) != 1
    ]
    assert ended_otherwise == []
    not_killed = [
        asked
        for asked in load.asked
        if not (asked.is_answered or asked.is_refused)
        if not any(asked.began_s <= kill_s <= asked.ended_s for kill_s in kills)
    ]
    assert not_killed == []
    assert sum(asked.is_refused for asked in load.asked) < 0.02 * len(load.asked)
