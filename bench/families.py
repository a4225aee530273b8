"""Exits of the family lite beside those of W18, on this machine, in one run.

    python bench/families.py --size 360x480

Every contender takes the same image with the same number of threads in one process. Each round runs
all of them in a new order. Reported are each exit's time from the start, as medians with quartiles,
and the time of the reference's last exit over that of the contender's, as the median of the ratios
within rounds.
"""

import argparse
import os
import random
import statistics
import time
from pathlib import Path

THREADS = str(len(os.sched_getaffinity(0)))
os.environ.setdefault("OMP_NUM_THREADS", THREADS)
os.environ.setdefault("ANYTIME_THREADS", THREADS)

import numpy as np  # noqa: E402  after the threads are set

from anytime_model.checkpoint.card import Card  # noqa: E402
from anytime_model.checkpoint.store import Checkpoint, load_checkpoint  # noqa: E402
from anytime_model.engines.native.engine import NativeEngine  # noqa: E402
from anytime_model.engines.openvino_engine import OpenVinoEngine  # noqa: E402
from anytime_model.engines.torch_engine import TorchEngine  # noqa: E402
from anytime_model.kernels.library import KernelError  # noqa: E402
from anytime_model.labels import Label  # noqa: E402
from anytime_model.networks.base import build_network  # noqa: E402
from anytime_model.networks.lite.config import LiteConfig  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SETTLE_S = 0.02


def lite(path):
    """The weights, or random ones, which take as long."""
    if path is not None:
        return load_checkpoint(path)
    config = LiteConfig("lite0", 11)
    labels = tuple(Label(f"class {i}", "#000000") for i in range(11))
    card = Card(name="lite", file="lite.safetensors", sha256="", config=config, labels=labels)
    return Checkpoint(build_network(config).eval().requires_grad_(False), card)


def contenders(options):
    """Engines by name; the last is the reference."""
    small = lite(options.weights)
    found = {
        f"lite {name}": make(small)
        for name, make in {
            "native f32": NativeEngine,
            "openvino bf16": lambda c: OpenVinoEngine(c, dtype="bf16"),
            "openvino f32": OpenVinoEngine,
            "torch f32": TorchEngine,
        }.items()
    }
    w18 = load_checkpoint(options.beside)
    for dtype in ("f32", "bf16"):
        try:
            found[f"W18 native {dtype}"] = NativeEngine(w18, dtype=dtype)
        except KernelError as e:
            print(f"W18 native {dtype} is left out: {e}")
    return found


def exit_times(engine, image, criteria):
    """When each exit was there, s from the start."""
    start = time.perf_counter()
    run = engine.begin(image)
    times = []
    for criterion in criteria:
        run.advance(criterion)
        times.append(time.perf_counter() - start)
    return times


def race(engines, image, rounds):
    """Times of every contender, (rounds, exits); each with the masks of its card."""
    times = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name in random.sample(list(engines), len(engines)):
            engine = engines[name]
            time.sleep(SETTLE_S)
            found = exit_times(engine, image, engine.card.criteria())
            if number:
                times[name].append(found)
    return {name: np.array(found) for name, found in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="of a lite network; random ones by default")
    parser.add_argument("--beside", type=Path, default=ROOT / "weights/camvid-w18.safetensors")
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    sample = ROOT / "client/web/samples/street-1.jpg"
    if sample.exists():
        import PIL.Image  # noqa: PLC0415

        image = np.asarray(PIL.Image.open(sample).convert("RGB").resize((width, height)))
    engines = contenders(options)
    times = race(engines, image, options.rounds)
    reference = list(engines)[-1]
    print(f"{options.size}, {THREADS} threads, {options.rounds} rounds, ms from the start")
    for name, found in times.items():
        low, middle, high = 1e3 * np.quantile(found, (0.25, 0.5, 0.75), axis=0)
        cells = " | ".join(
            f"{m:.1f} ({a:.1f}-{b:.1f})" for a, m, b in zip(low, middle, high, strict=True)
        )
        ratio = statistics.median(times[reference][:, -1] / found[:, -1])
        print(f"| {name} | {cells} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
