"""`anytime-server ray` as a process of its own, in an environment that has Ray."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from anytime_client import AnytimeError, Client
from client.fakes import free_port
from ecosystem.environments import is_complete, python_of
from system.long_requests import PREDICT, STREET
from system.processes import wait_for_http

ROOT = Path(__file__).parents[2]
REDEPLOY = Path(__file__).parent / "redeploy_on_ray.py"
ON_RAY = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not is_complete("ray"), reason="no environment: make test-ray makes it, and runs this"
    ),
]
"""Marks of the tests that `make test-ray` runs."""


@dataclass
class RayServer:
    """A running deployment.

    Attributes:
        process: of the command.
        url: of Ray's proxy.
        settings: of the replicas.
        environment: of its processes.
        log: what it and its replicas say.
    """

    process: subprocess.Popen
    url: str
    settings: dict
    environment: dict
    log: Path

    def replica_pids(self):
        """Of the processes of replicas."""
        return [pid for pid, name in _descendants(self.process.pid) if "ServeReplica" in name]

    def redeploy(self, **changes):
        """Deploys it anew with other settings; returns when that is done."""
        self.settings |= changes
        subprocess.run(
            [python_of("ray"), REDEPLOY, json.dumps(self.settings)],
            env=self.environment, check=True, timeout=200, cwd=ROOT,
        )  # fmt: skip


@contextmanager
def ray_server(weights, **settings):
    """A deployment on a Ray of its own, stopped in the end."""
    port, folder = free_port(), tempfile.mkdtemp(prefix="ray-")  # sockets' paths must be short
    settings = {"weights": str(weights), "threads": 1, "port": port, "replicas": "1"} | settings
    environment = {name: v for name, v in os.environ.items() if not name.startswith("ANYTIME_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("client", "server", "model")),
        "RAY_TMPDIR": folder,
        "PYTHONWARNINGS": "ignore",
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    log = Path(folder) / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python_of("ray"), "-m", "anytime_server.cli", "ray", *flags],
            stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        try:
            wait_for_http(f"{url}/readyz", lambda: process.poll() is None)
            _until_proxy_knows(url, int(settings["replicas"].partition("-")[0]))
        except TimeoutError:
            raise AssertionError(log.read_text()) from None
        yield RayServer(process, url, settings, environment, log)
    finally:
        process.terminate()
        process.wait(90)
        shutil.rmtree(folder, ignore_errors=True)


def _until_proxy_knows(url, count):
    """Waits until so many replicas have answered: the first does while others are unknown."""
    known, until = set(), time.monotonic() + 30
    while len(known) < count:
        known.add(replica_of(httpx.get(f"{url}/livez")))
        if time.monotonic() > until:
            raise TimeoutError(url)
        time.sleep(0.02)


def replica_of(answer):
    """The name of the replica that gave an answer."""
    return answer.headers["anytime-replica"]


def until_there_are(server, count):
    """Waits until so many replicas are left."""
    until = time.monotonic() + 120
    while len(server.replica_pids()) != count:
        assert time.monotonic() < until, server.log.read_text()
        time.sleep(0.2)


def _descendants(pid):
    """Numbers and command lines of the processes below one."""
    children, lines = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found, unseen = [], [pid]
    while unseen:
        for child in children.get(unseen.pop(), ()):
            found.append((child, lines[child]))
            unseen.append(child)
    return found


@dataclass
class Load:
    """Clients that ask without end, over HTTP and websockets, and what became of it.

    Attributes:
        answered: requests that got a map, by transport.
        lost: what all others got in its place.
        replicas: that answered over HTTP.
    """

    answered: dict = field(default_factory=lambda: {"http": 0, "websocket": 0})
    lost: list = field(default_factory=list)
    replicas: set = field(default_factory=set)

    def over_http(self, url, over):
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            while not over.is_set():
                try:
                    answer = http.post(
                        PREDICT, content=STREET.read_bytes(), headers={"Content-Type": "image/jpeg"}
                    )
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answered["http"] += 1
                    self.replicas.add(answer.headers["anytime-replica"])
                else:
                    self.lost.append(f"{answer.status_code} {answer.text}")

    def over_websockets(self, url, over):
        with Client(url) as client:
            while not over.is_set():
                try:
                    client.predict(STREET)
                    self.answered["websocket"] += 1
                except AnytimeError as error:
                    self.lost.append(repr(error))


@contextmanager
def load_on(url, clients=2):
    """A load while the statement lasts."""
    load, over = Load(), threading.Event()
    threads = [
        threading.Thread(target=ask, args=(url, over))
        for ask in (load.over_http, load.over_websockets)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
        time.sleep(1)
    finally:
        over.set()
        for thread in threads:
            thread.join(90)
