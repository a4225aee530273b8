"""The first rung of a ladder, several at a time: does it pay to share the cores, or to batch?

    python bench/first_rung.py --model camvid-w18

Milliseconds for each image, the median over some seconds: our native engine with all threads, with
one, and one process for each core at the same time (what `--executors` does); then PyTorch with all
threads, one image and two images at once. What is run in turn is run in several rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anytime_model.checkpoint import load_model, read_manifest
from anytime_model.engines.native.engine import NativeEngine
from anytime_model.networks.base import resized_size

ROOT = Path(__file__).parents[1]
SECONDS = 3.0
ROUNDS = 5
WARM = 5


def timed(call, seconds):
    """Milliseconds of each call for so long."""
    for _ in range(WARM):
        call()
    times, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        call()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def image_of(card):
    """A sample street at the size of the first rung."""
    height, width = resized_size((360, 480), card.sides[0] if card.sides else None)
    with Image.open(ROOT / "client/web/samples/street-1.jpg") as file:
        return np.asarray(file.convert("RGB").resize((width, height)))


def loaded(given):
    card = read_manifest(given.weights)[given.model]
    return load_model(card, given.weights)


def native(given):
    """Prints the median of this process alone."""
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    os.environ["ANYTIME_THREADS"] = str(given.threads)
    torch.set_num_threads(1)
    checkpoint = loaded(given)
    engine, image = NativeEngine(checkpoint), image_of(checkpoint.card)
    criterion = checkpoint.card.rung_criteria(None)[0]
    sys.stdin.readline()  # the others have loaded as well
    print(statistics.median(timed(lambda: engine.begin(image).advance(criterion), SECONDS)))


def first_exit(network, batch):
    network.advance(network.begin(batch))


def batches(given):
    """Medians of PyTorch by the number of images at once, for each image."""
    torch.set_num_threads(given.threads)
    checkpoint = loaded(given)
    pixels = torch.from_numpy(image_of(checkpoint.card).copy()).permute(2, 0, 1)[None] / 255.0
    network, found = checkpoint.network, {}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for count in (1, 2):
                batch = pixels.repeat(count, 1, 1, 1)
                times = timed(partial(first_exit, network, batch), SECONDS / ROUNDS * 2)
                found.setdefault(count, []).append(statistics.median(times) / count)
    for count, values in found.items():
        print(f"PyTorch, {given.threads} threads, {count} at once: {statistics.median(values):.2f}")


def run_together(given, *arguments):
    """Medians of native processes that compute at the same time."""
    command = [sys.executable, __file__, "--model", given.model, "--weights", given.weights]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, *map(str, each)], **pipes) for each in arguments]
    time.sleep(8.0)
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in started]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "weights")
    parser.add_argument("--model", default="camvid-w18")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu", type=int)
    parser.add_argument("--part", choices=("native", "batches"))
    given = parser.parse_args()
    if given.part:
        {"native": native, "batches": batches}[given.part](given)
        return
    cpus = sorted(os.sched_getaffinity(0))
    ways = {
        f"native, {given.threads} threads": [["--part", "native", "--threads", given.threads]],
        "native, 1 thread": [["--part", "native", "--threads", 1, "--cpu", cpus[0]]],
        f"native, {len(cpus)} processes of 1 thread at once": [
            ["--part", "native", "--threads", 1, "--cpu", cpu] for cpu in cpus
        ],
    }
    for name, arguments in ways.items():
        rounds = [run_together(given, *arguments) for _ in range(3)]
        each = statistics.median(statistics.mean(found) for found in rounds)
        per_image = each / len(arguments)
        print(f"{name}: {each:.2f}, an image every {per_image:.2f}", flush=True)
    batches(given)


if __name__ == "__main__":
    main()
