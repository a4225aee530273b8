"""What serving costs and whether promises are kept: ratios from one run against a real server.

Starts `anytime-server serve` on a free port and asks it over real sockets. Four questions:

* overhead: a JPEG in, a PNG out, against the bare engine in this process on the same image, the two
  interleaved so that both meet the same disturbances;
* cancel: from sending a cancel to the final message, which is sent only when the executor is idle;
* ping: round trip of a websocket ping while other connections keep the executor busy;
* deadline: deadlines drawn between exit 1's time and twice exit 4's, both as they were just before;
  how many requests get a map inside (a refusal counts as a miss, however early it comes; the clock
  is the client's), and how often the exit is the deepest that fits: the next one, asked for
  without a deadline right after, takes longer. A machine whose speed wanders is so compared with
  itself at the same moment. (`unmeetable`: answers without a map after which even exit 1, asked
  for without a deadline, took longer than there had been.)

With `--against ENGINE` a second server runs that engine, and the two are asked in turn for exit 1
and for the last exit: what an engine brings to clients.

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
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from websockets.asyncio.client import connect

from anytime_model.anytime import AnytimeNetwork
from anytime_model.checkpoint import load_model, save_checkpoint
from anytime_model.config import NetworkConfig
from anytime_model.engines.select import make_engine
from anytime_model.manifest import Card, Label, read_manifest
from anytime_protocol.enums import PROTOCOL
from anytime_protocol.http.headers import Result, parse_timing
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

_RECENT = 7
"""Answers whose median says what an exit takes now."""


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
    """A smooth picture as a JPEG file."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@contextmanager
def server(weights, model, size, arguments):
    """A server process; gives its port."""
    command = [sys.executable, "-m", "anytime_server.cli", "serve", "--port", "0"]
    command += ["--weights", str(weights), "--models", model, "--profile-size", size]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *arguments], stderr=log, cwd=ROOT)
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

    def __call__(self, deadline_ms=None, max_exit=None):
        """Status, headers and milliseconds of one answer."""
        headers = {"Content-Type": "image/jpeg", "Accept": "image/png"}
        if deadline_ms is not None:
            headers["X-Deadline-Ms"] = f"{deadline_ms:.3f}"
        query = "" if max_exit is None else f"?max_exit={max_exit}"
        began = time.perf_counter()
        self.connection.request("POST", self.path + query, self.image, headers)
        response = self.connection.getresponse()
        body = response.read()
        elapsed_ms = (time.perf_counter() - began) * 1e3
        if response.status != 200:
            self.problems.append(json.loads(body)["detail"])
        return response.status, response.headers, elapsed_ms


def time_bare(engine, card, pixels):
    """Milliseconds of the network alone, all exits, as the server runs it."""
    began = time.perf_counter()
    run = engine.begin(pixels)
    for criterion in card.criteria():
        run.advance(criterion)
    return (time.perf_counter() - began) * 1e3


def measure_overhead(ask, engine, card, image, rounds):
    """Medians of the parts of an answer, and of its ratio to the bare engine."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    for _ in range(3):
        time_bare(engine, card, pixels)
        ask()
    bares, totals, parts = [], [], []
    for _ in range(rounds):
        bares.append(time_bare(engine, card, pixels))
        _, headers, total = ask()
        totals.append(total)
        parts.append(parse_timing(headers["Server-Timing"]))
    names = ("queue", "decode", "compute", "encode")
    other = [t - sum(p[n] for n in names) for t, p in zip(totals, parts, strict=True)]
    return {
        "bare_ms": spread(bares),
        "total_ms": spread(totals),
        "overhead": spread([total / bare - 1 for total, bare in zip(totals, bares, strict=True)]),
        **{f"{name}_ms": spread([p[name] for p in parts]) for name in names},
        "other_ms": spread(other),
    }


async def hear(socket, session):
    """What the server says next."""
    while True:
        events = session.events()
        if events:
            return events
        session.receive(await socket.recv())


async def say(socket, session, message):
    """Say one message."""
    session.send(message)
    for frame in session.outgoing():
        await socket.send(frame)


def open_stream(port):
    """A websocket."""
    return connect(
        f"ws://127.0.0.1:{port}/v1/stream", subprotocols=[PROTOCOL], compression=None, proxy=None
    )


async def measure_cancel(port, model, image, longest_ms, rounds):
    """Cancel at random moments; how long until the executor is idle."""
    times = []
    async with open_stream(port) as socket:
        session = Session(Role.CLIENT)
        await hear(socket, session)
        for number in range(rounds):
            name = str(number)
            await say(
                socket, session, Infer(name, model, image, want=OutputOptions(progress=False))
            )
            heard = []
            wait_s = random.uniform(0.0, longest_ms) / 1e3
            try:
                async with asyncio.timeout(wait_s):
                    while True:
                        heard += await hear(socket, session)
            except TimeoutError:
                pass
            if any(isinstance(event, Finished | Failed) for event in heard):
                continue
            began = time.perf_counter()
            await say(socket, session, Cancel(name))
            over = None
            while over is None:
                ends = (e for e in await hear(socket, session) if isinstance(e, Finished | Failed))
                over = next(ends, None)
            if isinstance(over, Finished) and over.reason == "cancelled":
                times.append((time.perf_counter() - began) * 1e3)
    return {
        "cancels": len(times),
        "p50_ms": statistics.median(times),
        "p99_ms": percentile(times, 0.99),
        "max_ms": max(times),
    }


async def keep_busy(port, model, image, in_flight, served):
    """Keeps requests in flight on one connection, one update for each exit."""
    async with open_stream(port) as socket:
        session = Session(Role.CLIENT)
        await hear(socket, session)
        number = 0
        while True:
            while len(session.in_flight) < in_flight:
                number += 1
                await say(socket, session, Infer(str(number), model, image))
            served.extend(
                e for e in await hear(socket, session) if isinstance(e, Finished | Update)
            )


async def measure_ping(port, model, image, connections, seconds):
    """Round trips on a connection of their own while others keep the executor busy."""
    served = []
    load = [
        asyncio.create_task(keep_busy(port, model, image, 4, served)) for _ in range(connections)
    ]
    await asyncio.sleep(1.0)
    times = []
    async with open_stream(port) as socket:
        ready = Session(Role.CLIENT)
        assert isinstance((await hear(socket, ready))[0], Ready)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            await (await socket.ping())
            times.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(0.01)
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    return {
        "pings": len(times),
        "p50_ms": statistics.median(times),
        "p99_ms": percentile(times, 0.99),
        "max_ms": max(times),
        "finals_meanwhile": sum(isinstance(event, Finished) for event in served),
    }


def measure_deadlines(ask, rounds):
    """Depth by deadline; what each exit takes is measured around each request."""
    exits = 4
    times = {k: [ask(max_exit=k)[2] for _ in range(15)] for k in range(1, exits + 1)}
    answers = []
    deepest = inside = late = unmeetable = 0
    for number in range(rounds):
        k = (1, exits)[number % 2]
        times[k].append(ask(max_exit=k)[2])
        first, last = (statistics.median(times[k][-_RECENT:]) for k in (1, exits))
        deadline_ms = random.uniform(first, 2 * last)
        status, headers, elapsed_ms = ask(deadline_ms)
        exit_ = Result.parse(headers["Anytime-Result"]).exit if status == 200 else 0
        answers.append((deadline_ms, status, elapsed_ms))
        late += elapsed_ms > deadline_ms
        inside += status == 200 and elapsed_ms <= deadline_ms
        if exit_ < exits:
            next_ms = ask(max_exit=exit_ + 1)[2]
            times[exit_ + 1].append(next_ms)
            unmeetable += exit_ == 0 and next_ms > deadline_ms
        deepest += exit_ == exits or next_ms > deadline_ms
    return {
        "answers": rounds,
        "inside": inside / rounds,
        "deepest": deepest / rounds,
        "late": late / rounds,
        "latest_by_ms": max(elapsed_ms - deadline_ms for deadline_ms, _, elapsed_ms in answers),
        "unmeetable": unmeetable / rounds,
        "none": sum(status != 200 for _, status, _ in answers) / rounds,
        "problems": ask.problems[:3],
        "exit_ms": [round(statistics.median(times[k]), 1) for k in sorted(times)],
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
    ("deadline", "deepest", ">=", 0.90),
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
    for name, values in results.items():
        print(f"{name}: {'; '.join(f'{k} {written(v)}' for k, v in values.items())}")
    print()
    for part, name, sign, target in TARGETS:
        if part in results:
            value = results[part][name]
            value = value[0] if isinstance(value, list) else value
            good = value <= target if sign == "<=" else value >= target
            verdict = "yes" if good else "NO"
            print(f"{part} {name}: {value:.3g} (to reach: {sign} {target:g}) {verdict}")


def arguments():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="folder with manifest.toml; default weights/")
    parser.add_argument("--random", action="store_true", help="random weights, unmasked")
    parser.add_argument("--model", help="default: the first segmentation model")
    parser.add_argument("--preset", default="w18", help="of the random weights")
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH, px")
    parser.add_argument("--engine", default="auto", help="auto, native, torch or openvino")
    parser.add_argument("--against", help="an engine to compare with, in a server of its own")
    parser.add_argument("--rounds", type=int, default=60, help="of each measurement")
    parser.add_argument("--only", default="overhead,cancel,ping,deadline", help="which to measure")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def main():
    """Run it."""
    given = arguments()
    random.seed(0)
    height, width = (int(side) for side in given.size.split("x"))
    image = jpeg(height, width)
    with tempfile.TemporaryDirectory() as folder:
        weights = given.weights or ROOT / "weights"
        if given.random or not (weights / "manifest.toml").exists():
            weights = Path(folder)
            random_weights(weights, given.preset)
        cards = read_manifest(weights)
        model = given.model or next(n for n, c in cards.items() if c.config.task == "segmentation")
        engine = make_engine(load_model(cards[model], weights), given.engine)
        host = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        host += f"{os.getloadavg()[0]:.1f}, {engine.name}, {model}, {given.size}"
        with server(weights, model, given.size, ["--engine", given.engine]) as port:
            ask = Asker(port, model, image)
            results = {}
            only = given.only.split(",")
            if "overhead" in only:
                results["overhead"] = measure_overhead(
                    ask, engine, cards[model], image, given.rounds
                )
            if "cancel" in only:
                longest = statistics.median(ask()[2] for _ in range(5))
                results["cancel"] = asyncio.run(
                    measure_cancel(port, model, image, longest, 3 * given.rounds)
                )
            if "ping" in only:
                results["ping"] = asyncio.run(measure_ping(port, model, image, 4, 15.0))
            if "deadline" in only:
                ask = Asker(port, model, image)  # the first connection has timed out meanwhile
                results["deadline"] = measure_deadlines(ask, 4 * given.rounds)
            if given.against:
                other = ["--engine", given.against]
                with server(weights, model, given.size, other) as second:
                    asks = {
                        engine.name: Asker(port, model, image),
                        given.against: Asker(second, model, image),
                    }
                    results["engines"] = measure_engines(asks, given.rounds)
    if given.json:
        print(json.dumps({"host": host, **results}, indent=2))
    else:
        report(results, host)


if __name__ == "__main__":
    main()
