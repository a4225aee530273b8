"""What serving costs and whether promises are kept: ratios from one run against a real server.

Starts `anytime-server serve` on a free port and asks it over real sockets. Five questions:

* overhead: a JPEG in, a PNG out, against the bare engine in this process on the same image, along
  the exits that the server made, the two interleaved so that both meet the same disturbances;
* cancel: from sending a cancel to the final message, which is sent only when the executor is idle;
* ping: round trip of a websocket ping while other connections keep the executor busy;
* deadline: deadlines drawn between the first map's time and twice the best one's, both as they were
  just before; how many requests get a map inside (a refusal counts as a miss, however early it
  comes; the clock is the client's), and how often it is the best that fits: the soonest of those
  that are better, asked for without a deadline right after, takes longer. A machine whose speed
  wanders is so compared with itself at the same moment. (`quality_lost`: by how much the answers'
  quality is below that of the best that fits, a miss counting 0, on average; `unmeetable`: answers
  without a map after which even the first, asked for without a deadline, took longer than there had
  been.)
* first_use: images of sizes that are new to the server, each twice with the same deadline, on
  servers that were started for it (not by default).

With `--beside CHECKOUT` a server of another checkout runs as well, and everything is asked of the
two in turn: old and new in one run. With `--against ENGINE` another server runs that engine, and
the two are asked in turn for exit 1 and for the last exit: what an engine brings to clients.

Where there are no weights a network of random ones is served, unmasked.
"""

import argparse
import asyncio
import http.client
import io
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from deadlines import DeadlineTrial, Ways, first_use_report, measure_first_use, run_along
from PIL import Image
from websockets.asyncio.client import connect

from anytime_model.checkpoint.card import Card
from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.checkpoint.store import load_model, save_checkpoint
from anytime_model.engines.select import make_engine
from anytime_model.labels import Label
from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_protocol.enums import PROTOCOL
from anytime_protocol.http.headers import parse_timing
from anytime_protocol.messages import (
    Cancel,
    Failed,
    Finished,
    Infer,
    OutputOptions,
    Ready,
    Role,
    Update,
)
from anytime_protocol.session import Session

ROOT = Path(__file__).parents[1]

_IDLE_S = 2.0
"""After so long a connection is made anew, before the server closes it."""

_BLOCKS = 4
"""Turns of each server in the measurements that need a server to itself."""

_FIRST_USE_STARTS = 5
"""Servers that are started for images of new sizes; one is new only once."""

_PING_S = 16.0
"""Seconds of pings through each server."""


def percentile(values, share):
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def spread(values):
    """Median, with the quartiles around it."""
    low, middle, high = statistics.quantiles(values, n=4)
    return [middle, low, high]


def random_weights(folder, preset):
    """Write weights of a network that has learnt nothing."""
    config = NetworkConfig(preset=preset, outputs=11)
    labels = tuple(Label(f"class {k}", f"#{k:02x}4080") for k in range(11))
    save_checkpoint(
        AnytimeNetwork(config), Card("street", "s.safetensors", "", config, labels), folder
    )


def jpeg(height, width):
    """A smooth image as a JPEG file."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@contextmanager
def server(weights, model, size, arguments, checkout=ROOT):
    """A server process of a checkout; gives its port."""
    command = [sys.executable, "-m", "anytime_server.cli", "serve", "--port", "0"]
    command += ["--weights", str(weights), "--models", model, "--profile-size", size]
    paths = (str(checkout / name) for name in ("client", "model", "server"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, *arguments], stderr=log, cwd=checkout, env=environment
        )
        try:
            yield wait_ready(process, log)
        finally:
            process.terminate()
            process.wait(30)


def wait_ready(process, log):
    """The port, once requests are admitted."""
    port = None
    for _ in range(1200):
        time.sleep(0.1)
        log.seek(0)
        text = log.read()
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", text)
        if process.poll() is not None:
            sys.exit(f"the server did not start:\n{text}")
        if found and re.search(r"INFO +ready$", text, re.MULTILINE):
            port = int(found[1])
            break
    if port is None:
        sys.exit("the server was not ready within two minutes")
    return port


class Asker:
    """Asks for one PNG after the other on one connection."""

    def __init__(self, port, model, image):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.path = f"/v1/models/{model}/predict"
        self.image = image
        self.problems = []
        self.used = time.perf_counter()

    def __call__(self, deadline_ms=None, max_exit=None, image=None):
        """Status, headers and milliseconds of one answer, to its image or another."""
        headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
        if deadline_ms is not None:
            headers["X-Deadline-Ms"] = f"{deadline_ms:.3f}"
        query = "" if max_exit is None else f"?max_exit={max_exit}"
        if time.perf_counter() - self.used > _IDLE_S:
            self.connection.close()  # opened again by the next request
            self.connection.connect()
        began = time.perf_counter()
        self.connection.request("POST", self.path + query, image or self.image, headers)
        response = self.connection.getresponse()
        body = response.read()
        self.used = time.perf_counter()
        elapsed_ms = (self.used - began) * 1e3
        if response.status != 200:
            self.problems.append(json.loads(body)["detail"])
        return response.status, response.headers, elapsed_ms


def time_bare(engine, card, pixels, way):
    """Milliseconds of the network alone, as the server runs it."""
    began = time.perf_counter()
    run_along(engine, card, pixels, way)
    return (time.perf_counter() - began) * 1e3


def measure_overhead(asks, engine, card, pixels, ways, rounds):
    """Medians of the parts of an answer, and of its ratio to the bare engine, by server."""
    way = ways.of(next(iter(asks.values()))()[1])
    bares = []
    totals = {name: [] for name in asks}
    parts = {name: [] for name in asks}
    for number in range(rounds + 3):
        bare_ms = time_bare(engine, card, pixels, way)
        for name, ask in in_turn(asks, number):
            _, headers, total_ms = ask()
            if number >= 3:
                totals[name].append(total_ms)
                parts[name].append(parse_timing(headers["Server-Timing"]))
        if number >= 3:
            bares.append(bare_ms)
    found = {}
    for name in asks:
        both = list(zip(totals[name], bares, strict=True))
        shares = ("queue", "decode", "compute", "encode")
        rest = zip(totals[name], parts[name], strict=True)
        found[name] = {
            "way": "-".join(map(str, way)),
            "bare_ms": spread(bares),
            "total_ms": spread(totals[name]),
            "overhead": spread([total / bare - 1 for total, bare in both]),
            "overhead_ms": spread([total - bare for total, bare in both]),
            **{f"{share}_ms": spread([p[share] for p in parts[name]]) for share in shares},
            "other_ms": spread([total - sum(p[s] for s in shares) for total, p in rest]),
        }
    return found


def in_turn(contenders, number):
    """The contenders by name, in an order that changes with each round."""
    items = list(contenders.items())
    first = number % len(items)
    return items[first:] + items[:first]


async def receive(socket, session):
    """The next events of a connection."""
    while True:
        events = session.events()
        if events:
            return events
        session.receive(await socket.recv())


async def send(socket, session, message):
    """Send one message."""
    session.send(message)
    for frame in session.outgoing():
        await socket.send(frame)


def open_stream(port):
    """A websocket."""
    return connect(
        f"ws://127.0.0.1:{port}/v1/stream", subprotocols=[PROTOCOL], compression=None, proxy=None
    )


async def measure_cancel(port, model, image, longest_ms, rounds):
    """Cancel at random moments; milliseconds until the executor is idle."""
    times = []
    async with open_stream(port) as socket:
        session = Session(Role.CLIENT)
        await receive(socket, session)
        for number in range(rounds):
            name = str(number)
            await send(
                socket, session, Infer(name, model, image, want=OutputOptions(progress=False))
            )
            events_so_far = []
            wait_s = random.uniform(0.0, longest_ms) / 1e3
            try:
                async with asyncio.timeout(wait_s):
                    while True:
                        events_so_far += await receive(socket, session)
            except TimeoutError:
                pass
            if any(isinstance(event, Finished | Failed) for event in events_so_far):
                continue
            began = time.perf_counter()
            await send(socket, session, Cancel(name))
            over = None
            while over is None:
                ends = (
                    e for e in await receive(socket, session) if isinstance(e, Finished | Failed)
                )
                over = next(ends, None)
            if isinstance(over, Finished) and over.reason == "cancelled":
                times.append((time.perf_counter() - began) * 1e3)
    return times


async def keep_busy(port, model, image, in_flight, served):
    """Keeps requests in flight on one connection, one update for each exit."""
    async with open_stream(port) as socket:
        session = Session(Role.CLIENT)
        await receive(socket, session)
        number = 0
        while True:
            while len(session.in_flight) < in_flight:
                number += 1
                await send(socket, session, Infer(str(number), model, image))
            served.extend(
                e for e in await receive(socket, session) if isinstance(e, Finished | Update)
            )


async def measure_ping(port, model, image, connections, seconds):
    """Milliseconds of round trips on a connection of their own while others keep it busy."""
    served = []
    load = [
        asyncio.create_task(keep_busy(port, model, image, 4, served)) for _ in range(connections)
    ]
    await asyncio.sleep(1.0)
    times = []
    async with open_stream(port) as socket:
        ready = Session(Role.CLIENT)
        assert isinstance((await receive(socket, ready))[0], Ready)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            await (await socket.ping())
            times.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.01)
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    return times


def summary(times):
    """Percentiles of some milliseconds."""
    return {
        "count": len(times),
        "p50_ms": statistics.median(times),
        "p99_ms": percentile(times, 0.99),
        "max_ms": max(times),
    }


def measure_engines(asks, rounds):
    """Times of exit 1 and of the last exit through several servers, asked in turn.

    Args:
        asks: an `Asker` for each server, by its engine; ratios are to the first.
        rounds: answers of each kind from each.
    """
    found = {}
    for name, max_exit in (("exit 1", 1), ("last exit", None)):
        times = {engine: [] for engine in asks}
        for number in range(rounds + 3):
            for engine, ask in asks.items():
                elapsed_ms = ask(max_exit=max_exit)[2]
                if number >= 3:
                    times[engine].append(elapsed_ms)
        first = next(iter(times.values()))
        for engine, values in times.items():
            found[f"{name}, {engine}, ms"] = spread(values)
            if values is not first:
                ratios = [mine / best for mine, best in zip(values, first, strict=True)]
                found[f"{name}, {engine}, ratio"] = spread(ratios)
    return found


TARGETS = [
    ("overhead", "overhead", "<=", 0.10),
    ("cancel", "p99_ms", "<=", 20.0),
    ("ping", "p99_ms", "<=", 25.0),
    ("deadline", "inside", ">=", 0.99),
    ("deadline", "best", ">=", 0.90),
]


def written(value):
    """A figure; a spread as `median [quartile, quartile]`."""
    match value:
        case float():
            return f"{value:.3g}"
        case [float(middle), float(low), float(high)]:
            return f"{middle:.3g} [{low:.3g}, {high:.3g}]"
    return str(value)


def report(results, host):
    """Print the figures, and each target with its verdict."""
    print(f"# {host}")
    for part, by_server in results.items():
        for name, values in by_server.items():
            figures = "; ".join(f"{k} {written(v)}" for k, v in values.items())
            print(f"{part}, {name}: {figures}")
    print()
    for part, figure, sign, target in TARGETS:
        for name, values in results.get(part, {}).items():
            value = values[figure]
            value = value[0] if isinstance(value, list) else value
            good = value <= target if sign == "<=" else value >= target
            verdict = "yes" if good else "NO"
            print(f"{part} {figure}, {name}: {value:.3g} (to reach: {sign} {target:g}) {verdict}")


def arguments():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="folder with manifest.toml; default weights/")
    parser.add_argument("--random", action="store_true", help="random weights, unmasked")
    parser.add_argument("--model", help="default: the first segmentation model")
    parser.add_argument("--preset", default="w18", help="of the random weights")
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH, px")
    parser.add_argument("--engine", default="auto", help="auto, native, torch or openvino")
    parser.add_argument("--beside", type=Path, help="another checkout, asked in turn with this one")
    parser.add_argument("--against", help="an engine to compare with, in a server of its own")
    parser.add_argument("--rounds", type=int, default=60, help="of each measurement")
    parser.add_argument(
        "--only", default="overhead,cancel,ping,deadline", help="which to measure; also first_use"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def measure(asks, ports, only, rounds, bare, model, image):
    """Everything that was asked for, of all servers in turn."""
    results = {}
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    ways = Ways(*bare, pixels)
    exits = len(bare[1].rung_criteria())
    if "overhead" in only:
        results["overhead"] = measure_overhead(asks, *bare, pixels, ways, rounds)
    if "cancel" in only:
        longest = statistics.median(ask()[2] for ask in asks.values() for _ in range(5))
        times = {name: [] for name in asks}
        for block in range(_BLOCKS):
            for name, port in in_turn(ports, block):
                count = 3 * rounds // _BLOCKS
                times[name] += asyncio.run(measure_cancel(port, model, image, longest, count))
        results["cancel"] = {name: summary(values) for name, values in times.items()}
    if "ping" in only:
        times = {name: [] for name in asks}
        for block in range(_BLOCKS):
            for name, port in in_turn(ports, block):
                times[name] += asyncio.run(measure_ping(port, model, image, 4, _PING_S / _BLOCKS))
        results["ping"] = {name: summary(values) for name, values in times.items()}
    if "deadline" in only:
        fresh = {name: Asker(port, model, image) for name, port in ports.items()}
        trials = {name: DeadlineTrial(ask, ways, exits) for name, ask in fresh.items()}
        for number in range(4 * rounds):
            for _, trial in in_turn(trials, number):
                trial.draw()
        results["deadline"] = {name: trial.report() for name, trial in trials.items()}
    return results


def main():
    """Run it."""
    given = arguments()
    random.seed(0)
    height, width = (int(side) for side in given.size.split("x"))
    image = jpeg(height, width)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        weights = (given.weights or ROOT / "weights").absolute()
        if given.random or not (weights / "manifest.toml").exists():
            weights = Path(folder)
            random_weights(weights, given.preset)
        cards = read_manifest(weights)
        model = given.model or next(n for n, c in cards.items() if c.config.task == "segmentation")
        engine = make_engine(load_model(cards[model], weights), given.engine)
        host = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        host += f"{os.getloadavg()[0]:.1f}, {engine.name}, {model}, {given.size}"
        start = ["--engine", given.engine]
        checkouts = {"this": ROOT}
        if given.beside:
            checkouts["beside"] = given.beside.absolute()
        ports = {
            name: servers.enter_context(server(weights, model, given.size, start, checkout))
            for name, checkout in checkouts.items()
        }
        asks = {name: Asker(port, model, image) for name, port in ports.items()}
        bare = (engine, cards[model])
        only = given.only.split(",")
        results = measure(asks, ports, only, given.rounds, bare, model, image)
        if "first_use" in only:
            found = {name: [] for name in checkouts}
            for number in range(_FIRST_USE_STARTS):
                for name, checkout in in_turn(checkouts, number):
                    with server(weights, model, given.size, start, checkout) as port:
                        found[name] += measure_first_use(Asker(port, model, image), jpeg)
            results["first_use"] = {name: first_use_report(lates) for name, lates in found.items()}
        if given.against:
            other = ["--engine", given.against]
            with server(weights, model, given.size, other) as second:
                contenders = {
                    engine.name: Asker(ports["this"], model, image),
                    given.against: Asker(second, model, image),
                }
                found = measure_engines(contenders, given.rounds)
                results["engines"] = {"this": found}
    if given.json:
        print(json.dumps({"host": host, **results}, indent=2))
    else:
        report(results, host)


if __name__ == "__main__":
    main()
