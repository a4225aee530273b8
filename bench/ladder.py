"""When maps come and how good they are: the ladder beside the exits of one size, in one run.

Starts the server of another checkout and this one's, both with the shipped weights, and streams the
same frame through all exits of the two in turn. Milliseconds are the client's, from sending the
request to having the exit's map; quality is what each checkout's manifest quotes for the exit.

    python bench/ladder.py --beside ../old
"""

import argparse
import asyncio
import io
import json
import platform
import statistics
import tomllib
from pathlib import Path
from time import perf_counter

from PIL import Image
from rich.console import Console
from rich.table import Table

from anytime_protocol.messages import Failed, Finished, Infer, Update
from anytime_protocol.session import Role, Session
from server import ROOT, in_turn, open_stream, receive, send, server, spread

SAMPLE = ROOT / "client" / "web" / "samples" / "street-1.jpg"
WARM_UP = 3
"""Rounds before those that count."""

TARGETS = ((0.40, 1, 0.2), (0.52, 1, 1.0), (0.57, 2, 1.0), (0.62, 4, 1.0))
"""Quality to be had within a share of the time of an old exit."""


class Streamer:
    """Streams a frame through one server; collects the milliseconds of each exit."""

    def __init__(self, socket, session, model, image):
        self.socket, self.session, self.model, self.image = socket, session, model, image
        self.times = {}
        self.number = 0

    async def __call__(self, *, counts):
        """One request, to its end."""
        self.number += 1
        began = perf_counter()
        await send(self.socket, self.session, Infer(str(self.number), self.model, self.image))
        while True:
            for event in await receive(self.socket, self.session):
                match event:
                    case Update(exit=exit_) if counts:
                        self.times.setdefault(exit_, []).append((perf_counter() - began) * 1e3)
                    case Failed(detail=detail):
                        raise SystemExit(f"the server failed: {detail}")
                    case Finished():
                        return


async def measure(ports, model, image, rounds):
    """Milliseconds of each exit by server, in rounds that take the servers in turn."""
    streamers, sockets = {}, []
    for name, port in ports.items():
        sockets.append(await open_stream(port))
        session = Session(Role.CLIENT)
        await receive(sockets[-1], session)
        streamers[name] = Streamer(sockets[-1], session, model, image)
    for number in range(rounds + WARM_UP):
        for _, stream in in_turn(streamers, number):
            await stream(counts=number >= WARM_UP)
    for socket in sockets:
        await socket.close()
    return {name: stream.times for name, stream in streamers.items()}


def quoted_quality(checkout, model):
    """Quality of each exit in a checkout's manifest, and the scale of the images it was had at."""
    manifest = tomllib.loads((checkout / "weights" / "manifest.toml").read_text("utf-8"))
    found = manifest[model]["quality"]
    return found["per_exit"], found.get("scale", 1.0)


def show(console, title, times, quality):
    """A table of one server's exits."""
    table = Table(title=title)
    for column in ("exit", "ms", "quartiles", "quality"):
        table.add_column(column, justify="right")
    for exit_, values in sorted(times.items()):
        middle, low, high = spread(values)
        table.add_row(
            str(exit_), f"{middle:.1f}", f"{low:.1f}-{high:.1f}", f"{100 * quality[exit_ - 1]:.1f}"
        )
    console.print(table)


def reached(new, quality, old):
    """For each target: the ratio of times of the first map that is good enough, if there is one."""
    for least, exit_, share in TARGETS:
        good = [k for k in sorted(new) if quality[k - 1] >= least]
        bound = share * statistics.median(old[exit_])
        middle = statistics.median(new[good[0]]) if good else None
        yield {
            "quality": least,
            "bound": f"{share:g} of old exit {exit_}",
            "bound_ms": bound,
            "exit": good[0] if good else None,
            "ms": middle,
            "ratio": middle / bound if good else None,
        }


def main():
    """Prints both servers' exits and the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beside", type=Path, required=True, help="checkout of the old server")
    parser.add_argument("--model", default="camvid-w18")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    frame = Image.open(SAMPLE).convert("RGB").resize((480, 360))
    file = io.BytesIO()
    frame.save(file, "JPEG", quality=92)
    image = file.getvalue()
    console = Console()
    console.print(f"{platform.processor() or platform.machine()}; a 480x360 JPEG, raw maps back")
    with (
        server(options.beside / "weights", options.model, "360x480", [], options.beside) as old,
        server(ROOT / "weights", options.model, "360x480", []) as new,
    ):
        ports = {"old": old, "new": new}
        times = asyncio.run(measure(ports, options.model, image, options.rounds))
    before, scale = quoted_quality(options.beside, options.model)
    quality, _ = quoted_quality(ROOT, options.model)
    show(console, f"old (quality quoted at scale {scale:g})", times["old"], before)
    show(console, "new", times["new"], quality)
    targets = list(reached(times["new"], quality, times["old"]))
    for target in targets:
        ratio = "not reached at all" if target["ratio"] is None else f"{target['ratio']:.2f}"
        console.print(
            f"quality {target['quality']:.2f} within {target['bound']} "
            f"({target['bound_ms']:.1f} ms): exit {target['exit']}, {target['ms'] or 0:.1f} ms, "
            f"ratio {ratio}"
        )
    if options.json:
        options.json.write_text(json.dumps({"times_ms": times, "targets": targets}))


if __name__ == "__main__":
    main()
