"""When maps come and how good they are: the ladder beside the exits of one size, in one run.

Starts the server of another checkout and this one's, all with shipped weights, and streams the
same frame through the exits of each in turn. Milliseconds are the client's, from sending the
request to having the exit's map; quality is what this checkout's manifest quotes for the exit on
the path that the server took. Of several paths the most frequent one counts.

    python bench/ladder.py --beside ../old --models camvid-lite,camvid-w18

With `--static` the same networks also run as one would deploy them without exits: dense, in
OpenVINO, at one size and precision, in a process of their own, from the JPEG to the classes of the
map's cells. With `--plot` all of it is drawn.

The quality of networks at one size, the other checkout's among them, is in `static_quality.toml`.
"""

import argparse
import asyncio
import io
import json
import platform
import statistics
import tomllib
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from anytime_protocol.messages import Failed, Finished, Infer, Update
from anytime_protocol.session import Role, Session
from server import ROOT, in_turn, open_stream, receive, send, server, spread

SAMPLE = ROOT / "client" / "web" / "samples" / "street-1.jpg"
FRAME = (480, 360)
"""Width and height that it is sent at, px."""

WARM_UP = 3
"""Rounds before those that count."""

SETTLE_S = 0.02
"""Between two contenders: threads of the one before stop spinning."""

STATIC_QUALITY = Path(__file__).parent / "static_quality.toml"

TARGETS = ((0.40, 1, 0.2), (0.52, 1, 1.0), (0.57, 2, 1.0), (0.62, 4, 1.0))
"""Quality to be had within a share of the time of an old exit."""


class Streamer:
    """Streams a frame through one server; collects the milliseconds of each exit, by path."""

    def __init__(self, socket, session, model, image):
        self.socket, self.session, self.model, self.image = socket, session, model, image
        self.by_path = {}
        self.number = 0

    @property
    def times(self):
        """Milliseconds of each exit along the most frequent path."""
        runs = max(self.by_path.values(), key=len)
        return {exit_: [run[exit_] for run in runs] for exit_ in runs[0]}

    async def __call__(self, *, counts):
        """One request, to its end."""
        self.number += 1
        made = {}
        began = perf_counter()
        await send(self.socket, self.session, Infer(str(self.number), self.model, self.image))
        while True:
            for event in await receive(self.socket, self.session):
                match event:
                    case Update(exit=exit_):
                        made[exit_] = (perf_counter() - began) * 1e3
                    case Failed(detail=detail):
                        raise SystemExit(f"the server failed: {detail}")
                    case Finished():
                        if counts:
                            self.by_path.setdefault(tuple(made), []).append(made)
                        return


class StaticChoice:
    """A network without exits at one size, in a process of its own; collects its milliseconds."""

    def __init__(self, name, weights, side, dtype, image):
        self.name, self.times = name, []
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, str(weights), side, dtype, image)
        self.process = context.Process(target=serve_static, args=arguments, daemon=True)
        self.process.start()
        self.pipe.recv()  # it is ready

    async def __call__(self, *, counts):
        """One image."""
        self.pipe.send(True)
        took_ms = await asyncio.to_thread(self.pipe.recv)
        if counts:
            self.times.append(took_ms)

    def close(self):
        """Ends the process."""
        self.pipe.send(False)
        self.process.join()


def serve_static(pipe, weights, side, dtype, image):
    """Computes the image whenever it is told to go on; answers with milliseconds."""
    import openvino  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from engine import OneExit  # noqa: PLC0415

    from anytime_model.checkpoint.store import load_checkpoint  # noqa: PLC0415
    from anytime_model.networks.base import padded_size, resized_size  # noqa: PLC0415

    checkpoint = load_checkpoint(Path(weights))
    card = checkpoint.card
    height, width = resized_size(Image.open(io.BytesIO(image)).size[::-1], side)
    padded = padded_size((height, width), card.config.stride)
    example = torch.zeros(1, 3, *padded)
    model = openvino.convert_model(OneExit(checkpoint.network).eval(), example_input=example)
    model.reshape(list(example.shape))
    options = {"INFERENCE_PRECISION_HINT": dtype, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    scale = (1 / (255 * np.array(card.std))).astype(np.float32)
    offset = (-np.array(card.mean) / np.array(card.std)).astype(np.float32)
    filling = ((0, padded[0] - height), (0, padded[1] - width), (0, 0))
    pipe.send(None)
    while pipe.recv():
        began = perf_counter()
        frame = Image.open(io.BytesIO(image)).resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.pad(np.asarray(frame), filling, mode="edge") * scale + offset
        request.infer([np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])])
        request.get_output_tensor().data[0].argmax(axis=0).astype(np.uint8)
        pipe.send((perf_counter() - began) * 1e3)


async def measure(ports, models, image, rounds, static=()):
    """Milliseconds of each exit by server, in rounds that take all in turn."""
    contenders, sockets = {choice.name: choice for choice in static}, []
    for name, port in ports.items():
        sockets.append(await open_stream(port))
        session = Session(Role.CLIENT)
        await receive(sockets[-1], session)
        contenders[name] = Streamer(sockets[-1], session, models[name], image)
    for number in range(rounds + WARM_UP):
        for _, contender in in_turn(contenders, number):
            sleep(SETTLE_S)
            await contender(counts=number >= WARM_UP)
    for socket in sockets:
        await socket.close()
    return {name: contender.times for name, contender in contenders.items()}


def quoted_quality(checkout, model, shown):
    """Quality of each exit, as a checkout's manifest has it, by its number.

    Args:
        checkout: whose.
        model: its name.
        shown: exits that the server has sent: those that are better than all before them.
    """
    manifest = tomllib.loads((checkout / "weights" / "manifest.toml").read_text("utf-8"))
    if "ladder" not in manifest[model]:  # quoted at another size
        side = str(max(FRAME))
        return dict(enumerate(quality_at_one_size()[model][side], start=1))
    quality = manifest[model]["quality"]
    paths = [dict(zip(p["rungs"], p["quality"], strict=True)) for p in quality.get("paths", [])]
    for path in [*paths, dict(enumerate(quality["per_exit"], start=1))]:
        better = [
            k for k, q in path.items() if q > max([path[n] for n in path if n < k], default=-1)
        ]
        if better == list(shown):
            return path
    raise SystemExit(f"{model} has no measured path that shows the exits {list(shown)}")


def quality_at_one_size():
    """Quality of each exit by model and side, px."""
    return tomllib.loads(STATIC_QUALITY.read_text("utf-8"))


def show(console, title, times, quality):
    """A table of one server's exits."""
    table = Table(title=title)
    for column in ("exit", "ms", "quartiles", "quality"):
        table.add_column(column, justify="right")
    for exit_, values in sorted(times.items()):
        middle, low, high = spread(values)
        table.add_row(
            str(exit_), f"{middle:.1f}", f"{low:.1f}-{high:.1f}", f"{100 * quality[exit_]:.1f}"
        )
    console.print(table)


def reached(new, quality, old):
    """For each target: the ratio of times of the first map that is good enough, if there is one."""
    for least, exit_, share in TARGETS:
        if exit_ not in old:  # left out
            continue
        good = [k for k in sorted(new) if quality[k] >= least]
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


def static_choices(image):
    """Every network, size and precision of `static_quality.toml`, ready to run, with quality."""
    quality = {}
    choices = []
    for model, sides in quality_at_one_size().items():
        for side, scores in sides.items():
            for dtype in ("f32", "bf16"):
                name = f"{model} {side} px {dtype}"
                weights = ROOT / "weights" / f"{model}.safetensors"
                choices.append(StaticChoice(name, weights, int(side), dtype, image))
                quality[name] = scores[-1]
    return choices, quality


def plot(path, times, quality):
    """Quality over time: a line for each server, a point for each static choice."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    markers = iter("osD^v<>")
    for name, found in times.items():
        if isinstance(found, dict):
            exits = sorted(found)
            x = [statistics.median(found[k]) for k in exits]
            y = [100 * quality[name][k] for k in exits]
            axes.step(x, y, where="post", marker=next(markers), label=name)
    points = {name: found for name, found in times.items() if not isinstance(found, dict)}
    for dtype, marker in (("f32", "x"), ("bf16", "+")):
        chosen = [name for name in points if name.endswith(dtype)]
        if chosen:
            axes.scatter(
                [statistics.median(points[name]) for name in chosen],
                [100 * quality[name] for name in chosen],
                marker=marker,
                color="black",
                label=f"OpenVINO {dtype}, one size, no exits, no server",
            )
    for name, found in points.items():
        if name.endswith("f32"):
            at = (statistics.median(found), 100 * quality[name])
            axes.annotate(
                name.removesuffix(" f32"), at, (5, -11), textcoords="offset points", fontsize=8
            )
    axes.set(xlabel="ms from sending a 480x360 JPEG", ylabel="mIoU, CamVid test", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=150)


def main():
    """Prints the exits of all servers and the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beside", type=Path, required=True, help="checkout of the old server")
    parser.add_argument("--old-model", default="camvid-w18")
    parser.add_argument("--models", default="camvid-lite,camvid-w18", help="of this checkout")
    parser.add_argument("--static", action="store_true", help="also OpenVINO without exits")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--plot", type=Path, help="also draw quality over time here")
    options = parser.parse_args()
    frame = Image.open(SAMPLE).convert("RGB").resize(FRAME)
    file = io.BytesIO()
    frame.save(file, "JPEG", quality=92)
    image = file.getvalue()
    console = Console()
    console.print(f"{platform.processor() or platform.machine()}; a 480x360 JPEG, raw maps back")
    old = f"old {options.old_model}"
    models = {old: options.old_model} | {name: name for name in options.models.split(",")}
    static, quality = static_choices(image) if options.static else ((), {})
    with ExitStack() as stack:
        ports = {}
        for name, model in models.items():
            checkout = options.beside if name == old else ROOT
            served = server(checkout / "weights", model, "360x480", [], checkout)
            ports[name] = stack.enter_context(served)
        for choice in static:
            stack.callback(choice.close)
        times = asyncio.run(measure(ports, models, image, options.rounds, static))
    quality[old] = quoted_quality(options.beside, options.old_model, times[old])
    show(console, old, times[old], quality[old])
    targets = {}
    for name in list(models)[1:]:
        quality[name] = quoted_quality(ROOT, models[name], times[name])
        show(console, name, times[name], quality[name])
        targets[name] = list(reached(times[name], quality[name], times[old]))
        for target in targets[name]:
            ratio = "not reached at all" if target["ratio"] is None else f"{target['ratio']:.2f}"
            console.print(
                f"quality {target['quality']:.2f} within {target['bound']} "
                f"({target['bound_ms']:.1f} ms): exit {target['exit']}, {target['ms'] or 0:.1f} "
                f"ms, ratio {ratio}"
            )
    for choice in static:
        middle, low, high = spread(choice.times)
        score = f"{100 * quality[choice.name]:.1f}"
        console.print(f"{choice.name}: {middle:.1f} ms ({low:.1f}-{high:.1f}), {score}")
    if options.json:
        options.json.write_text(json.dumps({"times_ms": times, "targets": targets}))
    if options.plot:
        plot(options.plot, times, quality)


if __name__ == "__main__":
    main()
