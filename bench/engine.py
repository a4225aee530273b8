"""Our engine against the runtimes that a user could pick instead, on this machine, in one run.

    python bench/engine.py --preset w18 --size 512x1024 --dtype int8

W18 runs with the shipped weights, a photograph and the masks of the card (`--masks real`); others
with random weights and masks as large as the paper's. Every contender takes the same image
with the same number of threads in one process. Each round runs all of them in a new order; what
is reported is the median over rounds of the ratio within a round, with its quartiles, so that a
machine that speeds up or slows down between rounds matters little.
The peers run the network with a single exit, which is less work than ours with its four. OpenVINO's
int8 is made by NNCF in an environment of its own (`make bench-nncf`). With `--data`, the mIoU of
each contender's last map stands beside its time.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

THREADS = str(len(os.sched_getaffinity(0)))
os.environ.setdefault("OMP_NUM_THREADS", THREADS)
os.environ.setdefault("ANYTIME_THREADS", THREADS)

import numpy as np  # noqa: E402  after the threads are set
import torch  # noqa: E402
from layers import Profile, table  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

from anytime_model.checkpoint.card import Card, Quantisation  # noqa: E402
from anytime_model.checkpoint.store import Checkpoint, load_checkpoint  # noqa: E402
from anytime_model.engines.base import Dtype  # noqa: E402
from anytime_model.engines.native.engine import NativeEngine  # noqa: E402
from anytime_model.engines.native.ranges import measure_ranges  # noqa: E402
from anytime_model.labels import Label  # noqa: E402
from anytime_model.networks.hrnet.anytime import AnytimeNetwork  # noqa: E402
from anytime_model.networks.hrnet.blocks import ConvNorm  # noqa: E402
from anytime_model.networks.hrnet.config import NetworkConfig  # noqa: E402
from anytime_model.results import ExitResult  # noqa: E402

PAPER_MASKED = (0.193, 0.384, 0.630)
"""Share of positions that the paper's W48 had masked in stages 2, 3 and 4."""

CLASSES = 19
SETTLE_S = 0.02
MOST_MEASURED = 32
"""Images that our ranges are measured on where the card has none."""
FLOATS = ("exit 4",)
"""What stays in floats in int8 where the card has no ranges, as on the shipped W18's."""
ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights" / "camvid-w18.safetensors"
IMAGE = ROOT / "client" / "web" / "samples" / "street-1.jpg"
NNCF_PYTHON = ROOT / ".cache" / "nncf" / "bin" / "python"


@dataclass(frozen=True)
class Painted:
    """A criterion that leaves active what was painted."""

    mask: Tensor

    def __call__(self, logits: Tensor) -> Tensor:  # noqa: ARG002  it does not look
        """The mask, whatever the map."""
        return self.mask


Clock = Callable[[], float]
"""Seconds: of the wall's clock, or of the processor's."""


@dataclass(frozen=True)
class Contender:
    """Something that is timed: `run` does one image and may say when it made each exit.

    `last_map` is the (K, h, w) map that it ends with for an image.
    """

    name: str
    run: Callable[[], list[float]]
    last_map: Callable[[Any], Any] | None = None


class OneExit(nn.Module):
    """The network as one would deploy it without exits: all stages, the last head."""

    def __init__(self, network: AnytimeNetwork) -> None:
        super().__init__()
        self.stages, self.exit = network.stages, network.exits[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Image to map."""
        features: Any = (image,)
        for stage in self.stages:
            features = stage(features, None, lambda: None)
        result: Tensor = self.exit(features, None)
        return result


def coherent_mask(share: float, height: int, width: int, seed: int) -> Tensor:
    """A blobby random mask (1, 1, h, w) with the given share masked."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand((1, 1, height // 10 + 2, width // 10 + 2), generator=generator)
    field = nn.functional.interpolate(noise, size=(height, width), mode="bicubic")
    threshold = field.flatten().kthvalue(max(1, round(share * field.numel()))).values
    return field > threshold


def ours(
    name: str, engine: NativeEngine, image: Any, criteria: tuple[Any, ...], clock: Clock
) -> Contender:
    """Our engine with these criteria: the times at which each exit's result was there, s."""

    def run() -> list[float]:
        start = clock()
        begun = engine.begin(image)
        times = []
        for criterion in criteria:
            begun.advance(criterion)
            times.append(clock() - start)
        return times

    def last_map(other: Any) -> Any:
        begun = engine.begin(other)
        return [begun.advance(criterion) for criterion in criteria][-1].logits

    return Contender(name, run, last_map)


def timed(
    name: str,
    call: Callable[[], object],
    clock: Clock,
    last_map: Callable[[Any], Any] | None = None,
) -> Contender:
    """A contender that has nothing to show before its end."""

    def run() -> list[float]:
        start = clock()
        call()
        return [clock() - start]

    return Contender(name, run, last_map)


def torch_peer(
    network: AnytimeNetwork, image: Tensor, dtype: str, clock: Clock, *, compiled: bool
) -> Contender:
    """PyTorch as fast as it goes: channels_last, normalisation folded, optionally compiled."""
    module: Any = OneExit(_folded(network)).eval().to(memory_format=torch.channels_last)
    batch = image.contiguous(memory_format=torch.channels_last)
    if compiled:
        module = torch.compile(module)

    def call() -> None:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"),
        ):
            module(batch)

    return timed("torch compiled" if compiled else "torch eager", call, clock)


def _folded(network: AnytimeNetwork) -> AnytimeNetwork:
    copy = AnytimeNetwork(network.config).eval()
    copy.load_state_dict(network.state_dict())
    for layer in copy.modules():
        if isinstance(layer, ConvNorm):
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.norm)
            layer.norm = nn.Identity()  # type: ignore[assignment]
    return copy.requires_grad_(requires_grad=False)


def onnx_file(network: AnytimeNetwork, image: Tensor, folder: Path) -> Path:
    """The one-exit network as ONNX."""
    path = folder / "one_exit.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(OneExit(network).eval(), (image,), str(path), dynamo=False)
    return path


def openvino_peers(path: Path, image: Any, int8: Path | None, clock: Clock) -> list[Contender]:
    """OpenVINO in each precision, and at its own choice.

    Args:
        path: the network.
        image: (1, 3, H, W) normalised.
        int8: the same, quantised; None leaves it out.
    """
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    peers = []
    for name, file, options in (
        ("openvino f32", path, {"INFERENCE_PRECISION_HINT": "f32"}),
        ("openvino bf16", path, {"INFERENCE_PRECISION_HINT": "bf16"}),
        ("openvino default", path, {}),
        ("openvino int8", int8, {}),
    ):
        if file is None:
            continue
        graph = core.compile_model(
            str(file), "CPU", {"INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": "1", **options}
        )
        request = graph.create_infer_request()

        def call(batch: Any = image, request: Any = request) -> Any:
            return request.infer([batch])

        def last_map(batch: Any, call: Any = call) -> Any:
            return next(iter(call(batch).values()))[0]

        peers.append(timed(name, call, clock, last_map))
    return peers


def quantised_peer(path: Path, frames: Any) -> Path | None:
    """The network of an ONNX file in int8 by NNCF; None where its environment is not there."""
    if not NNCF_PYTHON.exists():
        sys.stderr.write("left out: openvino int8; run `make bench-nncf` first\n")
        return None
    saved, target = path.with_name("frames.npy"), path.with_name("int8.xml")
    np.save(saved, frames)
    command = [NNCF_PYTHON, Path(__file__).with_name("nncf_int8.py"), path, saved, target]
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)
    return target


def normalised(image: Any, card: Card) -> Any:
    """An image (H, W, 3) as a batch (1, 3, H, W) that the peers take."""
    values = (image.astype(np.float32) / 255 - np.float32(card.mean)) / np.float32(card.std)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def scores(
    contenders: list[Contender], options: argparse.Namespace, card: Card
) -> dict[str, float]:
    """mIoU of each contender's last map, in percent, over images brought to the size raced at."""
    from PIL import Image  # noqa: PLC0415

    from anytime_model.evaluation.run import open_data  # noqa: PLC0415

    height, width = (int(side) for side in options.size.split("x"))
    source, _ = open_data(options.data, options.split)
    count = min(options.limit or len(source), len(source))
    classes = len(card.labels)
    found = {
        one.name: np.zeros((classes, classes)) for one in contenders if one.last_map is not None
    }
    for index in np.linspace(0, len(source) - 1, count, dtype=int):
        sample = source[int(index)]
        image = np.array(Image.fromarray(sample.image).resize((width, height)))
        batch = normalised(image, card)
        known = sample.labels < classes
        for one in contenders:
            if one.last_map is None:
                continue
            ours_ = one.name.startswith("ours")
            logits = torch.from_numpy(np.array(one.last_map(image if ours_ else batch)))[None]
            full = nn.functional.interpolate(logits, sample.labels.shape, mode="bilinear")
            predicted = full.argmax(1)[0].numpy()
            cells = classes * sample.labels[known].astype(int) + predicted[known]
            found[one.name] += np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    result = {}
    for name, confusion in found.items():
        right = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - right
        result[name] = float(100 * (right[union > 0] / union[union > 0]).mean())
    return result


def onnxruntime_peer(path: Path, image: Any, clock: Clock) -> Contender:
    """ONNX Runtime, float32."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(THREADS)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return timed("onnxruntime f32", lambda: session.run(None, {name: image}), clock)


def race(contenders: list[Contender], rounds: int) -> dict[str, list[list[float]]]:
    """Times of every contender in every round; the first round warms up and is not counted."""
    order = list(contenders)
    times: dict[str, list[list[float]]] = {contender.name: [] for contender in contenders}
    for round_ in range(rounds + 1):
        random.Random(round_).shuffle(order)
        for contender in order:
            time.sleep(SETTLE_S)  # threads of the one before stop spinning
            taken = contender.run()
            if round_ > 0:
                times[contender.name].append(taken)
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {"cpu": model, "threads": int(THREADS), "torch": torch.__version__}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--preset", default="w18", choices=["tiny", "w18", "w32", "w48"])
    parser.add_argument("--size", default="512x1024", help="HEIGHTxWIDTH, px")
    parser.add_argument("--dtype", default="f32", choices=get_args(Dtype))
    parser.add_argument("--beside", default="", help="ours in other precisions, too: f32,bf16")
    parser.add_argument(
        "--masks", choices=["paper", "real"], help="real by default where there are weights: w18"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="for --masks real")
    parser.add_argument("--image", type=Path, default=IMAGE, help="for --masks real")
    parser.add_argument(
        "--frames", type=Path, help="folder of training images for int8; else the image raced with"
    )
    parser.add_argument("--most-frames", type=int, default=300)
    parser.add_argument("--data", type=Path, help="also score each contender on a data set")
    parser.add_argument("--split", default="test", help="of --data")
    parser.add_argument("--limit", type=int, help="of --data: only so many images")
    parser.add_argument("--isa", help="instruction set of our engine; the fastest by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--peers", default="", help="only these: openvino int8,torch eager")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="of the process, not of the clock: on a machine that others use; run on one core",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--layers", action="store_true", help="only a table of our own operations, no race"
    )
    options = parser.parse_args(arguments)
    options.masks = options.masks or ("real" if options.preset == "w18" else "paper")
    if options.data and options.masks != "real":
        parser.error("--data needs --masks real")
    return options


def frames_of(options: argparse.Namespace, image: Any) -> list[Any]:
    """What the ranges of int8 are measured on: training images at the size raced at."""
    if options.frames is None:
        return [image]
    from PIL import Image  # noqa: PLC0415

    found = sorted(path for path in options.frames.rglob("*") if path.is_file())
    chosen = np.linspace(0, len(found) - 1, min(options.most_frames, len(found)), dtype=int)
    height, width = image.shape[:2]
    return [np.array(Image.open(found[i]).convert("RGB").resize((width, height))) for i in chosen]


def with_ranges(checkpoint: Checkpoint, frames: list[Any]) -> Checkpoint:
    """A checkpoint that can run in int8, with the ranges of its card if it has some."""
    card = checkpoint.card
    if card.int8 is not None:
        return checkpoint
    images = [torch.from_numpy(normalised(frame, card)[0]) for frame in frames[:MOST_MEASURED]]
    ranges = measure_ranges(checkpoint.network, images, floats=FLOATS)
    int8 = Quantisation(ranges, "mse", len(images), card.sha256, floats=FLOATS)
    return replace(checkpoint, card=replace(card, int8=int8))


def subject(options: argparse.Namespace) -> tuple[Checkpoint, Any, tuple[Any, ...]]:
    """Checkpoint, image and criteria to race with."""
    height, width = (int(side) for side in options.size.split("x"))
    if options.masks == "real":
        from PIL import Image  # noqa: PLC0415

        checkpoint = load_checkpoint(options.weights)
        opened = Image.open(options.image).convert("RGB").resize((width, height))
        return checkpoint, np.array(opened), checkpoint.card.criteria()
    torch.manual_seed(0)
    config = NetworkConfig(options.preset, CLASSES)
    labels = tuple(Label(f"class {i}", "#808080") for i in range(CLASSES))
    card = Card("random", "random.safetensors", "0" * 64, config, labels)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = (height + -height % 32, width + -width % 32)
    masks = [
        Painted(coherent_mask(share, padded[0] // 4, padded[1] // 4, seed=1))
        for share in PAPER_MASKED
    ]
    return Checkpoint(AnytimeNetwork(config).eval(), card), image, (*masks, None)


def main(arguments: list[str] | None = None) -> int:
    """Race, and print what came out."""
    options = parse(arguments)
    torch.set_num_threads(int(THREADS))
    checkpoint, image, criteria = subject(options)
    clock = time.process_time if options.cpu_time else time.perf_counter
    frames = frames_of(options, image)
    precisions = [name for name in options.beside.split(",") if name]
    if "int8" in (options.dtype, *precisions):
        checkpoint = with_ranges(checkpoint, frames)
    engine = NativeEngine(checkpoint, dtype=options.dtype, isa=options.isa)
    if options.layers:
        sys.stdout.write(_layers(options, engine, checkpoint, image, criteria) + "\n")
        return 0
    tensor = normalised(image, checkpoint.card)
    batch = torch.from_numpy(tensor)
    network: Any = checkpoint.network
    contenders = [
        ours("ours masked", engine, image, criteria, clock),
        ours("ours dense", engine, image, (None,) * 4, clock),
        *(
            ours(
                f"ours masked {dtype}",
                NativeEngine(checkpoint, dtype=dtype),
                image,
                criteria,
                clock,
            )
            for dtype in precisions
        ),
        torch_peer(network, batch, options.dtype, clock, compiled=False),
    ]
    if options.compile:
        contenders.append(torch_peer(network, batch, options.dtype, clock, compiled=True))
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = onnx_file(network, batch, Path(folder))
            int8 = quantised_peer(
                path, np.concatenate([normalised(frame, checkpoint.card) for frame in frames])
            )
            contenders += openvino_peers(path, tensor, int8, clock)
            contenders.append(onnxruntime_peer(path, tensor, clock))
        except ImportError as e:
            sys.stderr.write(f"left out: {e}\n")
        wanted = options.peers.split(",")
        contenders = [
            one
            for one in contenders
            if one.name.startswith("ours") or not options.peers or one.name in wanted
        ]
        times = race(contenders, options.rounds)
        miou = {} if options.data is None else scores(contenders, options, checkpoint.card)
    peak = max(engine.library.peak_macs_per_s(engine.isa) for _ in range(9))
    results = _results(engine, image, criteria)
    report = {**_report(options, engine, times, results, peak), "miou": miou}
    sys.stdout.write((json.dumps(report, indent=2) if options.json else _table(report)) + "\n")
    return 0


def _layers(
    options: argparse.Namespace,
    engine: NativeEngine,
    checkpoint: Checkpoint,
    image: Any,
    criteria: tuple[Any, ...],
) -> str:
    height, width = image.shape[:2]
    padded = (height + -height % 32, width + -width % 32)
    clock = time.process_time if options.cpu_time else time.perf_counter
    profile = Profile(engine, checkpoint, padded, clock)
    peak = max(engine.library.peak_macs_per_s(engine.isa) for _ in range(9))
    parts = []
    for name, some in (("masked", criteria), ("dense", (None,) * len(criteria))):
        parts.append(f"{options.preset} {options.size} {engine.name}, {name}")
        parts.append(table(profile.measure(image, some, options.rounds), peak))
        parts.append(profile.footer() + "\n")
    return "\n".join(parts)


def _results(engine: NativeEngine, image: Any, criteria: tuple[Any, ...]) -> list[ExitResult]:
    begun = engine.begin(image)
    return [begun.advance(criterion) for criterion in criteria]


def _report(
    options: argparse.Namespace,
    engine: NativeEngine,
    times: dict[str, list[list[float]]],
    results: list[ExitResult],
    peak: float,
) -> dict[str, Any]:
    totals = {name: [taken[-1] for taken in rounds] for name, rounds in times.items()}
    masked, dense = totals["ours masked"], totals["ours dense"]
    macs = sum(result.macs for result in results)
    return {
        "machine": machine(),
        "engine": engine.name,
        "preset": engine.card.config.preset,
        "size": options.size,
        "masks": options.masks,
        "active_share": [round(result.active_share, 3) for result in results[:-1]],
        "rounds": options.rounds,
        "ms": {name: [1e3 * t for t in quartiles(values)] for name, values in totals.items()},
        "over_ours_masked": {
            name: quartiles([other / own for other, own in zip(values, masked, strict=True)])
            for name, values in totals.items()
            if name != "ours masked"
        },
        "over_ours_dense": {
            name: quartiles([other / own for other, own in zip(values, dense, strict=True)])
            for name, values in totals.items()
            if not name.startswith("ours")
        },
        "exit_ms": {
            name: [1e3 * statistics.median(exits) for exits in zip(*times[name], strict=True)]
            for name in ("ours masked", "ours dense")
        },
        "exit_1_share_of_dense": statistics.median(t[0] / t[-1] for t in times["ours dense"]),
        "gmacs_masked": macs / 1e9,
        "peak_gmacs_per_s": peak / 1e9,
        "share_of_peak_masked": macs / statistics.median(masked) / peak,
    }


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['preset']} {report['size']} {report['engine']}, masks: {report['masks']}, "
        f"active {', '.join(f'{share:.1%}' for share in report['active_share'])}",
        f"{report['machine']['cpu']}, {report['machine']['threads']} threads, "
        f"{report['rounds']} rounds",
        "",
        f"{'':18}{'ms (quartiles)':>24}{'over ours masked':>24}{'over ours dense':>24}"
        + ("    mIoU" if report["miou"] else ""),
    ]
    for name, (low, middle, high) in report["ms"].items():
        line = f"{name:18}{f'{middle:.1f} ({low:.1f}-{high:.1f})':>24}"
        for key in ("over_ours_masked", "over_ours_dense"):
            ratio = report[key].get(name)
            line += f"{f'{ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f})' if ratio else '':>24}"
        if name in report["miou"]:
            line += f"{report['miou'][name]:8.2f}"
        lines.append(line)
    for name, exits in report["exit_ms"].items():
        lines.append(f"{name}: exits after {', '.join(f'{ms:.1f}' for ms in exits)} ms")
    lines.append(f"exit 1 takes {report['exit_1_share_of_dense']:.1%} of the dense run")
    lines.append(
        f"masked: {report['gmacs_masked']:.1f} G multiply-adds, "
        f"{report['share_of_peak_masked']:.0%} of this machine's measured peak"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
