"""What Ray's proxy adds: the same server behind it and without it, asked in turn in one run.

`make bench-ray`. Starts `anytime-server serve` and `anytime-server ray` with one replica on free
ports, both by the interpreter of the environment that `make test-ray` makes, and asks them in turn
for whole answers over HTTP and a websocket, and for a cancel at a random moment of a request.
Beside them an application that answers the same upload with the same bytes at once (`ray_bare.py`),
by uvicorn and on the same Ray: what is added to it is Ray's part.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from anytime_client import AsyncClient

ROOT = Path(__file__).parents[1]
BARE = ROOT / "bench" / "ray_bare.py"
STREET = ROOT / "client" / "web" / "samples" / "street-1.jpg"


def free_port():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment_of(folder):
    """Of servers, and of what joins their Ray; that has its files in a folder."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("client", "model", "server"))
    return os.environ | {
        "PYTHONPATH": paths, "RAY_TMPDIR": folder, "PYTHONWARNINGS": "ignore",
    }  # fmt: skip


@contextmanager
def server(folder, *line):
    """A server process; its URL once it is ready."""
    port = free_port()
    line = [*line, "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            line, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment_of(folder)
        )
        try:
            url = f"http://127.0.0.1:{port}"
            if not is_ready(url, process):
                log.seek(0)
                sys.exit(f"{' '.join(line)} did not start:\n{log.read()}")
            yield url
        finally:
            process.terminate()
            process.wait(90)


def is_ready(url, process):
    """Waits until requests are admitted, two minutes at most."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).is_success:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    return False


class Measured:
    """One server, a bare one, and the milliseconds that they took, by what they were asked for."""

    def __init__(self, url, bare, model):
        self.model = model
        self.urls = {"http": f"{url}/v1/models/{model}/predict", "bare": f"{bare}/answer"}
        self.http = httpx.AsyncClient(timeout=60, trust_env=False)
        self.client = AsyncClient(url)
        self.took = {"http": [], "bare": [], "websocket": [], "first map": [], "cancel": []}

    async def ask_http(self, what):
        """A whole answer over HTTP, on a connection that is kept; its bytes."""
        begun = time.perf_counter()
        answer = await self.http.post(
            self.urls[what], content=STREET.read_bytes(), headers={"Content-Type": "image/jpeg"}
        )
        self.took[what].append((time.perf_counter() - begun) * 1e3)
        answer.raise_for_status()
        return answer.content

    async def ask_websocket(self):
        """A whole answer on a websocket, with its first map on the way."""
        begun = time.perf_counter()
        async with self.client.stream(STREET, model=self.model) as stream:
            async for update in stream:
                if update.exit == 1:
                    self.took["first map"].append((time.perf_counter() - begun) * 1e3)
        self.took["websocket"].append((time.perf_counter() - begun) * 1e3)

    async def ask_cancel(self, after_s):
        """A request that is cancelled after a while."""
        async with self.client.stream(STREET, model=self.model) as stream:
            await stream.start()
            await asyncio.sleep(after_s)
            begun = time.perf_counter()
            await stream.cancel()
            if (await stream.wait()).reason == "cancelled":
                self.took["cancel"].append((time.perf_counter() - begun) * 1e3)

    async def close(self):
        """Ends the connections."""
        await self.http.aclose()
        await self.client.close()


def percentile(values, percent):
    """A percentile, at least as many values below it."""
    return sorted(values)[min(int(len(values) * percent / 100), len(values) - 1)]


def report(direct, behind):
    """Milliseconds of both, and of what the proxy adds."""
    rows = {}
    for what, mine in behind.took.items():
        theirs = direct.took[what]
        rows[what] = {
            "n": len(mine),
            "direct": {p: round(percentile(theirs, p), 2) for p in (50, 95, 99)},
            "ray": {p: round(percentile(mine, p), 2) for p in (50, 95, 99)},
        }
        if what != "cancel":
            added = [a - b for a, b in zip(mine, theirs, strict=True)]
            rows[what]["added"] = {
                "median": round(statistics.median(added), 2),
                "quartiles": [round(percentile(added, p), 2) for p in (25, 75)],
            }
    return rows


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=str(ROOT / ".cache/ecosystem/ray/bin/python"))
    parser.add_argument("--weights", default=str(ROOT / "weights"))
    parser.add_argument("--model", default="camvid-lite")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    arguments = ["--weights", chosen.weights, "--models", chosen.model]
    arguments += ["--threads", str(chosen.threads), "--log-level", "warning"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
        direct, behind = (
            stack.enter_context(
                server(folder, chosen.python, "-m", "anytime_server.cli", command, *arguments)
            )
            for command in ("serve", "ray")
        )
        answer = Path(folder, "answer")
        answer.write_bytes(asyncio.run(Measured(direct, direct, chosen.model).ask_http("http")))
        bare = stack.enter_context(server(folder, chosen.python, str(BARE), str(answer)))
        subprocess.run([chosen.python, BARE, answer], check=True, env=environment_of(folder))
        both = [(direct, bare), (behind, f"{behind}/bare")]
        figures = asyncio.run(measure(both, chosen.model, chosen.rounds))
        size = answer.stat().st_size
    found = {"machine": platform.machine(), "model": chosen.model, "answer_bytes": size}
    print(json.dumps(found | {"ms": figures}, indent=2))


async def measure(servers, model, rounds):
    """Asks both in turn."""
    both, draw = [Measured(*urls, model) for urls in servers], random.Random(0)
    for number in range(-5, rounds):
        after_s = draw.uniform(0.0, 0.04)
        for one in both if number % 2 else both[::-1]:
            await one.ask_http("http")
            await one.ask_http("bare")
            await one.ask_websocket()
            await one.ask_cancel(after_s)
        if number < 0:  # warming up
            for one in both:
                one.took = {what: [] for what in one.took}
    for one in both:
        await one.close()
    return report(*both)


if __name__ == "__main__":
    main()
