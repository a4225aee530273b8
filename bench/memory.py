#!/usr/bin/env python3
"""What memory a server takes while images of many sizes come: both processes, from its metrics.

A network at random weights and without a ladder, so that each size needs buffers of its own. First
one image after another, then several at once.
"""

import argparse
import random
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from server import jpeg, random_weights, server

SERVING = "process_resident_memory_bytes"
COMPUTING = "anytime_executor_resident_memory_bytes"
ENGINES = "anytime_engine_memory_bytes"


def read(port):
    """MiB by metric."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    found = re.findall(rf"^({SERVING}|{COMPUTING}|{ENGINES})(?:{{.*}})? (\S+)$", text, re.M)
    return {name: float(value) / 2**20 for name, value in found}


def main():
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="w18", help="of the random weights")
    parser.add_argument("--sizes", type=int, default=100, help="how many different ones")
    parser.add_argument("--largest", default="800x1300", help="HEIGHTxWIDTH, px")
    parser.add_argument("--at-once", type=int, default=4, help="requests at a time, in the end")
    parser.add_argument("--engine-memory-mb", type=int, default=2048, help="the server's setting")
    given = parser.parse_args()
    height, width = (int(side) for side in given.largest.split("x"))
    draw = random.Random(0)
    images = [jpeg(draw.randint(100, height), draw.randint(100, width)) for _ in range(given.sizes)]
    with tempfile.TemporaryDirectory() as folder:
        random_weights(Path(folder), given.preset)
        bound = ["--engine-memory-mb", str(given.engine_memory_mb)]
        with server(Path(folder), "street", "360x480", bound) as port:
            peak = read(port)
            print_row("ready", peak)

            def ask(image):
                url = f"http://127.0.0.1:{port}/v1/models/street/predict?max_exit=2"
                lines = {"Content-Type": "image/jpeg"}
                httpx.post(url, content=image, headers=lines, timeout=300, trust_env=False)
                for name, value in read(port).items():
                    peak[name] = max(peak[name], value)

            for image in images:
                ask(image)
            print_row("one after another", peak)
            with ThreadPoolExecutor(given.at_once) as threads:
                list(threads.map(ask, images))
            print_row(f"{given.at_once} at once", peak)


def print_row(what, values):
    """A line of the largest values so far."""
    print(
        f"{what:20} serving {values[SERVING]:6.0f} MiB, computing {values[COMPUTING]:6.0f} MiB, "
        f"of it counted {values[ENGINES]:6.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
