"""Several live streams on one server: how many frames are answered inside their deadline.

    python bench/streams.py --data CAMVID

Each stream is a standing camera (`scenes.py`) with its own scene; its frames come as JPEG at a
fixed rate whatever has become of the ones before, the streams one after the other within a period.
A frame is in time if its map has come back within the deadline from when it was to be sent; one
that the server passed over, as a newer one had come, is not. All streams compute their frames alone
and with reuse, in turn, on one server.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import statistics
import time
from pathlib import Path

THREADS = str(len(os.sched_getaffinity(0)))
os.environ.setdefault("OMP_NUM_THREADS", THREADS)

from engine import machine  # noqa: E402  after the threads are set
from PIL import Image  # noqa: E402
from scenes import StandingCamera, brought_to, noisy  # noqa: E402

from anytime_client import AsyncClient, MissingArrayError, ReuseOptions  # noqa: E402
from server import ROOT, percentile, server  # noqa: E402

NOISE = 2.0
"""Of the cameras, levels of 0 to 255."""


def encoded(data, seed, count, size):
    """The frames of a camera, JPEG."""
    camera = StandingCamera(data, 0.15, seed)
    files = []
    for number in range(count):
        image, _ = brought_to(*camera.frame(number), size)
        file = io.BytesIO()
        Image.fromarray(noisy(image, NOISE, number)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


async def stream(port, files, options, begin, reuse):
    """One stream's answers: (frame, ms from when it was due, exit or None, share reused)."""
    due = {}

    async def frames():
        for number in range(options.frames):
            due[number + 1] = begin + number * options.period_ms / 1e3
            await asyncio.sleep(max(0, due[number + 1] - time.perf_counter()))
            yield files[number % len(files)]

    answers = []
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        video = client.video(frames(), deadline_ms=options.deadline_ms, reuse=reuse)
        async for result in video:
            late = 1e3 * (time.perf_counter() - due[result.frame])
            made = None
            if result.error is None:
                with contextlib.suppress(MissingArrayError):  # stopped before exit 1
                    made = result.best.exit
            answers.append((result.frame, late, made, result.reused_share))
    return answers


async def measure(port, cameras, options, reuse):
    """All streams' answers."""
    begin, apart = time.perf_counter() + 1, options.period_ms / 1e3 / len(cameras)
    return await asyncio.gather(
        *(
            stream(port, files, options, begin + apart * number, reuse)
            for number, files in enumerate(cameras)
        )
    )


def report(name, streams, options):
    """Prints and returns one way's figures."""
    answers = [answer for one in streams for answer in one if answer[0] > options.warm_up]
    sent = len(streams) * (options.frames - options.warm_up)
    made = [answer for answer in answers if answer[2] is not None]
    in_time = [answer for answer in made if answer[1] <= options.deadline_ms]
    times = [answer[1] for answer in made]
    figures = {
        "in_time": len(in_time) / sent,
        "passed_over": (sent - len(answers)) / sent,
        "without_map": (len(answers) - len(made)) / sent,
        "late": (len(made) - len(in_time)) / sent,
        "median_ms": statistics.median(times),
        "p99_ms": percentile(times, 0.99),
        "mean_exit": statistics.mean(answer[2] for answer in made),
        "share": statistics.mean(answer[3] for answer in made),
    }
    print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    return figures


def main():
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CamVid")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--frames", type=int, default=100, help="that each stream sends")
    parser.add_argument("--warm-up", type=int, default=3, help="frames that do not count")
    parser.add_argument("--period-ms", type=float, default=200.0)
    parser.add_argument("--deadline-ms", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    size = (360, 480)
    cameras = [encoded(options.data, seed, 30, size) for seed in range(options.streams)]
    print(machine(), vars(options) | {"data": None, "json": None})
    found = []
    with server(ROOT / "weights", "camvid-w18", "480x360", []) as port:
        for _ in range(options.rounds):
            for name, reuse in (("alone", None), ("with reuse", ReuseOptions())):
                streams = asyncio.run(measure(port, cameras, options, reuse))
                found.append({"way": name} | report(name, streams, options))
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
