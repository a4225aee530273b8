"""Servers beyond their capacity: who answers in time, and how well.

Arrivals come at 0.5 to 8 times the rate that our full depth takes, asked one after the other.
Open-loop arrivals (Poisson, bursty), times from the scheduled arrival, HTTP and websockets. The
contenders are asked in turn, in an order that changes with each rate, with the same arrivals:

* `ours, http` and `ours, websocket`: the server as it is;
* `ours, exit K`: the same with a depth that no request may exceed, the best such K;
* `litserve, full`: LitServe with OpenVINO at the last exit of the largest size;
* `litserve, exit K`: the same at its best exit.

The best K maximises mean quality over all rates, if all requests are answered that the time of one
answer leaves room for. LitServe computes one size alone, which takes less time than our ladder to
the same exit, and is credited with the ladder's quality; requests that have waited too long to be
in time are dropped from its queue.

Writes all results as JSON, prints them as a table and draws them. Runs that are too long for one
sitting can be taken in parts: with --add, results are added to what the file holds.
"""

import argparse
import asyncio
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from open_loop import HttpLoad, WebsocketLoad, drive
from overload_report import draw, summarise, table
from PIL import Image

from anytime_server.simulation.traffic import Bursty, Poisson, arrival_times
from server import Asker, in_turn, server

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache"
LOADS = (0.5, 1.0, 2.0, 4.0, 8.0)
SAMPLES = ("street-1.jpg", "street-2.jpg")
PAUSE_S = 0.5
SEED = 1


def arrivals(kind, rate_hz):
    """Traffic of a mean rate; a burst lasts 0.5 s on average and has three times as much."""
    if kind == "poisson":
        return Poisson(rate_hz)
    return Bursty(0.5 * rate_hz, 3.0 * rate_hz, 2.0, 0.5)


def due_times(kind, rate_hz, seconds):
    return list(arrival_times(arrivals(kind, rate_hz), seconds, random.Random(SEED)))


def jpegs(height, width):
    """Our sample streets at this size."""
    files = []
    for name in SAMPLES:
        with Image.open(ROOT / "client/web/samples" / name) as image:
            file = io.BytesIO()
            image.convert("RGB").resize((width, height)).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return files


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    body = connection.getresponse().read()
    connection.close()
    return body.decode()


def counters(port):
    """Sums and counts of our server's metrics, by name with labels."""
    found = {}
    for line in get(port, "/metrics").splitlines():
        match = re.match(r"(\w+?)(?:_(sum|count)|_total)(\{.*\})? (\S+)$", line)
        if match and (match[1].startswith("anytime") or match[1] == "process_cpu_seconds"):
            found[match[1] + (match[3] or ""), match[2] or "total"] = float(match[4])
    return found


def costs(before, after):
    """Means of what the server measured between two looks at its metrics, seconds."""
    change = {key: value - before.get(key, 0.0) for key, value in after.items()}

    def mean(name):
        count = change.get((name, "count"), 0.0)
        return round(change[name, "sum"] / count, 6) if count else None

    stages = {
        re.search(r'stage="(\d+)"', name)[1]: [mean(name), round(count)]
        for (name, kind), count in change.items()
        if name.startswith("anytime_stage_seconds") and kind == "count" and count
    }
    return {
        "stages_s": dict(sorted(stages.items(), key=lambda item: int(item[0]))),
        "decode_s": mean("anytime_decode_seconds"),
        "encode_s": mean('anytime_encode_seconds{encoding="png"}'),
        "overhead_s": mean("anytime_stage_overhead_seconds"),
        "server_cpu_s": round(change["process_cpu_seconds", "total"], 3),
    }


@contextmanager
def litserve(python, graph, precision, limit_s):
    """A LitServe process; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, ROOT / "bench/litserve_peer.py", "serve", graph, "--precision", precision]
    command += ["--port", str(port), "--limit-s", f"{limit_s:.4f}"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(300):
            time.sleep(0.1)
            if process.poll() is not None:
                sys.exit(f"LitServe did not start; run {' '.join(map(str, command))}")
            try:
                if "ok" in get(port, "/health"):
                    break
            except (OSError, http.client.HTTPException):
                continue
        else:
            sys.exit("LitServe was not ready within 30 s")
        yield port
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def peer_times(python, given, images):
    """Seconds of one answer of each OpenVINO graph, by exit: (seconds, precision)."""
    folder = CACHE / "overload" / given.model
    if not (folder / "1.xml").exists():
        subprocess.run(
            [
                *(sys.executable, ROOT / "bench/openvino_graphs.py", "--weights", given.weights),
                *("--model", given.model, "--size", given.size, "--out", folder),
            ],
            check=True,
        )
    graphs = sorted(folder.glob("*.xml"), key=lambda path: int(path.stem))
    file = folder / "image.jpg"
    file.write_bytes(images[0])
    timing = [python, ROOT / "bench/litserve_peer.py", "time", *graphs, "--image", file]
    found = json.loads(subprocess.run(timing, check=True, capture_output=True).stdout)
    best = {}
    for graph, by_precision in found.items():
        precision = min(by_precision, key=by_precision.get)
        best[int(Path(graph).stem)] = (by_precision[precision], precision)
    return folder, best


def best_static(seconds, quality, rate_hz):
    """The exit that would serve best over all rates, from the time that one answer takes."""

    def score(exit_):
        loads = (load * rate_hz * seconds[exit_] for load in LOADS)
        return quality[exit_ - 1] * statistics.mean(min(1.0, 1.0 / busy) for busy in loads)

    return max(seconds, key=score)


def our_times(ask, exits):
    """Seconds of one answer at each depth, asked one after the other."""
    times = {exit_: [] for exit_ in range(1, exits + 1)}
    for number in range(12):
        for exit_, found in times.items():
            elapsed_ms = ask(max_exit=exit_)[2]
            if number >= 2:
                found.append(elapsed_ms / 1e3)
    return {exit_: statistics.median(values) for exit_, values in times.items()}


async def run_cell(load, due_s):
    await load.open()
    try:
        return await drive(load, due_s)
    finally:
        await load.close()


def recovery(make_load, rate_hz, seconds):
    """Seconds from the end of 8 times the rate until all answers are at their deepest again."""
    rush = due_times("poisson", LOADS[-1] * rate_hz, seconds)
    calm = [seconds + 2.0 * number / rate_hz for number in range(int(1.5 * rate_hz))]
    outcomes, _ = asyncio.run(run_cell(make_load(), rush + calm))
    after = outcomes[len(rush) :]
    full = max(outcome.exit for outcome in after)
    shallow = [o.due_s for o in after if o.exit < full]
    first = next(o.due_s for o in after if o.due_s > max(shallow, default=-1.0))
    return {"full_exit": full, "seconds": round(first - seconds, 3)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "weights")
    parser.add_argument("--model", default="camvid-w18")
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH of the images, px")
    parser.add_argument("--deadline-ms", type=float, default=400.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each rate")
    parser.add_argument("--arrivals", default="poisson,bursty", help="poisson, bursty or both")
    parser.add_argument("--loads", default=",".join(map(str, LOADS)), help="times full depth")
    parser.add_argument("--rate", type=float, help="that full depth takes, a second; else measured")
    parser.add_argument(
        "--executors", default="1", help="of our server; several numbers are servers asked in turn"
    )
    parser.add_argument("--only", default="", help="contenders whose names contain this")
    parser.add_argument("--peer", type=Path, default=CACHE / "litserve/bin/python")
    parser.add_argument("--out", type=Path, default=CACHE / "overload/results.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/overload.png")
    parser.add_argument("--add", action="store_true", help="to what the output file holds")
    parser.add_argument("--draw-only", action="store_true", help="table and plot of that file")
    return parser.parse_args()


def cpu_name():
    """As the system calls it."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    name = found.get("model name", "unknown CPU")
    return f"{name}, family {found.get('cpu family')}, model {found.get('model')}"


def measure(given, results, save):
    """All cells of a run, added to `results`; `save` is called after each."""
    height, width = (int(side) for side in given.size.split("x"))
    images, deadline_s = jpegs(height, width), given.deadline_ms / 1e3
    wanted = [float(load) for load in given.loads.split(",")]
    with ExitStack() as stack:
        peers = {}
        if not given.only.startswith("ours"):
            folder, peers = peer_times(given.peer, given, images)
        ports = {
            count: stack.enter_context(
                server(given.weights.absolute(), given.model, given.size, ["--executors", count])
            )
            for count in given.executors.split(",")
        }
        port = next(iter(ports.values()))
        info = json.loads(get(port, f"/v1/models/{given.model}"))
        quality = [exit_["quality"] for exit_ in info["exits"]]
        times = {
            count: our_times(Asker(each, given.model, images[0]), len(quality))
            for count, each in ports.items()
        }
        ours = next(iter(times.values()))
        rate_hz = given.rate or results.get("rate_hz") or 1.0 / ours[len(quality)]
        cap = best_static(ours, quality, rate_hz)
        path = f"/v1/models/{given.model}/predict"

        def litserve_at(exit_):
            seconds, precision = peers[exit_]
            limit_s = max(deadline_s - 1.5 * seconds - 0.005, 0.01)
            lit = stack.enter_context(
                litserve(given.peer, folder / f"{exit_}.xml", precision, limit_s)
            )
            return lambda: HttpLoad(lit, "/predict", images, deadline_s)

        contenders, port_of = {}, {}
        for count, each in ports.items():
            suffix = f", {count} executors" if len(ports) > 1 else ""
            own = {
                "ours, http": partial(HttpLoad, each, path, images, deadline_s),
                "ours, websocket": partial(WebsocketLoad, each, given.model, images, deadline_s),
                f"ours, exit {cap}": partial(
                    HttpLoad, each, f"{path}?max_exit={cap}", images, deadline_s
                ),
            }
            contenders |= {f"{name}{suffix}": (load, 0) for name, load in own.items()}
            port_of |= dict.fromkeys(contenders.keys() - port_of.keys(), each)
        if peers:
            static = best_static({k: s for k, (s, _) in peers.items()}, quality, rate_hz)
            contenders["litserve, full"] = (litserve_at(len(quality)), len(quality))
            contenders[f"litserve, exit {static}"] = (litserve_at(static), static)
        contenders = {name: item for name, item in contenders.items() if given.only in name}
        results |= {
            "machine": f"{cpu_name()}, {os.cpu_count()} cores",
            "model": given.model,
            "engine": f"{info.get('engine')}, {info.get('precision')}",
            "size": given.size,
            "deadline_ms": given.deadline_ms,
            "rate_hz": rate_hz,
            "quality": quality,
            "seed": SEED,
            "our_answer_s": {k: round(s, 5) for k, s in ours.items()},
            "answer_s_by_executors": {
                count: {k: round(s, 5) for k, s in found.items()} for count, found in times.items()
            },
            "litserve_answer_s": {k: [round(s, 5), p] for k, (s, p) in peers.items()},
        }
        for make_load, _ in contenders.values():  # whatever is made at the first requests
            asyncio.run(run_cell(make_load(), due_times("poisson", rate_hz, 1.5)))
        number = 0
        for kind in given.arrivals.split(","):
            for load in wanted:
                due_s = due_times(kind, load * rate_hz, given.seconds)
                for name, (make_load, exit_) in in_turn(contenders, number):
                    time.sleep(PAUSE_S)
                    before = counters(port_of.get(name, port))
                    outcomes, cpu = asyncio.run(run_cell(make_load(), due_s))
                    cell = {"contender": name, "arrivals": kind, "load": load}
                    cell |= summarise(outcomes, deadline_s, quality, exit_)
                    cell |= {"seconds": given.seconds, "generator_cpu": round(cpu, 3)}
                    if name.startswith("ours"):
                        cell |= {"costs": costs(before, counters(port_of[name]))}
                    results["cells"] = [
                        old
                        for old in results["cells"]
                        if (old["contender"], old["arrivals"], old["load"]) != (name, kind, load)
                    ] + [cell]
                    save()
                number += 1
        if "ours, http" in contenders:
            for _ in range(3):
                found = recovery(contenders["ours, http"][0], rate_hz, 2.0)
                results["recovery"] = [*results.get("recovery", []), found][-6:]
            save()


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    results = {"cells": []}
    if (given.add or given.draw_only) and given.out.exists():
        results = json.loads(given.out.read_text())
    given.out.parent.mkdir(parents=True, exist_ok=True)

    def save():
        given.out.write_text(json.dumps(results, indent=1) + "\n")

    if not given.draw_only:
        measure(given, results, save)
    print(table(results))
    draw(results, given.picture)


if __name__ == "__main__":
    main()
