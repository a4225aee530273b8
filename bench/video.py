"""Videos frame by frame and with reuse, in turn, in one run: how much faster, and what it costs.

    python bench/video.py --data CAMVID --preset w18 --size 360x480
    python bench/video.py --data CAMVID --preset w18 --size 360x480 --picture docs/video-reuse.png

Two videos: a standing camera, made of a frame of CamVid in which cars and people of other frames
move (15 % of the pixels, camera noise of two levels, labels exact), and CamVid's validation clip, a
moving car. Each frame is computed alone and with reuse, in changing order; ratios are of the
two times of a frame. Differences are from the frames computed alone; those of the first
frame, which nothing precedes, are left out of all means. W18 has the shipped weights and the masks
of its card; w48 random weights and masks as large as the paper's, so no quality.

Without `--ladder`, images run once, at the size raced at.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

THREADS = str(len(os.sched_getaffinity(0)))
os.environ.setdefault("OMP_NUM_THREADS", THREADS)
os.environ.setdefault("ANYTIME_THREADS", THREADS)

import numpy as np  # noqa: E402  after the threads are set
import torch  # noqa: E402
from engine import PAPER_MASKED, Painted, coherent_mask, machine  # noqa: E402
from PIL import Image  # noqa: E402
from scenes import Clip, StandingCamera, brought_to, noisy  # noqa: E402

from anytime_model.checkpoint.card import Card  # noqa: E402
from anytime_model.checkpoint.store import Checkpoint, load_checkpoint  # noqa: E402
from anytime_model.data.camvid import CLASSES  # noqa: E402
from anytime_model.engines.ladder import LadderEngine  # noqa: E402
from anytime_model.engines.native.engine import NativeEngine  # noqa: E402
from anytime_model.evaluation.scores import SegmentationScore  # noqa: E402
from anytime_model.networks.hrnet.anytime import AnytimeNetwork  # noqa: E402
from anytime_model.networks.hrnet.config import NetworkConfig  # noqa: E402
from anytime_model.video import ReuseSettings, VideoMemory, bound  # noqa: E402

ROOT = Path(__file__).parents[1]
NOISE = 2.0
"""Of the standing camera, levels of 0 to 255."""


@dataclass
class Found:
    """What a video has given; lists have a number for each frame but the first."""

    alone_s: list = field(default_factory=list)
    reuse_s: list = field(default_factory=list)
    overhead_s: list = field(default_factory=list)
    macs: list = field(default_factory=list)
    share: list = field(default_factory=list)
    difference: list = field(default_factory=list)
    bytes: int = 0
    scores: tuple = ()
    last: tuple = ()


def checkpoint_of(preset):
    """The shipped weights, or random ones."""
    if preset == "w18":
        return load_checkpoint(ROOT / "weights" / "camvid-w18.safetensors")
    torch.manual_seed(0)
    network = AnytimeNetwork(NetworkConfig(preset, len(CLASSES))).eval().requires_grad_(False)
    card = Card(preset, "none", "0" * 64, network.config, labels=CLASSES)
    return Checkpoint(network, card)


def frames_of(name, seed, options, size):
    """Images and labels of a video at (H, W) px."""
    if name == "clip":
        video = Clip(options.data)
    else:
        video = StandingCamera(options.data, options.moving, seed)
    for number in range(options.frames):
        image, labels = brought_to(*video.frame(number), size)
        yield (image if name == "clip" else noisy(image, NOISE, number)), labels


def climb(run, criteria):
    """The last map of a run, and the multiply-adds of all its stages."""
    macs = 0
    for rung, criterion in enumerate(criteria, start=1):
        result = run.advance(criterion, rung=rung)
        macs += result.macs
    return result, macs


def race(name, seed, engine, criteria, options, size):
    """One video, frame by frame and with reuse in turn."""
    settings = ReuseSettings(options.max_age, options.max_difference, motion=options.motion)
    memory = VideoMemory(engine, settings)
    found = Found(scores=(SegmentationScore(len(CLASSES)), SegmentationScore(len(CLASSES))))
    for number, (image, labels) in enumerate(frames_of(name, seed, options, size)):
        results = {}
        for way in ("alone", "reuse") if number % 2 else ("reuse", "alone"):
            began = time.perf_counter()
            if way == "alone":
                results[way] = *climb(engine.begin(image), criteria), time.perf_counter() - began
                continue
            run = memory.begin(image)
            begun = time.perf_counter()
            result, macs = climb(run, criteria)
            made = time.perf_counter()
            reuse = memory.finish(result)
            ended = time.perf_counter()
            results[way] = result, macs, ended - began
            overhead = begun - began + ended - made
        maps = [engine.decode(results[way][0]).labels for way in ("alone", "reuse")]
        for score, map_ in zip(found.scores, maps, strict=True):
            score.add(torch.from_numpy(map_)[None], torch.from_numpy(labels)[None])
        found.bytes = max(found.bytes, memory.bytes + memory.feature_bytes)
        if memory.wants_check:
            memory.begin_check()
            memory.finish_check(results["alone"][0])
        if not number:
            continue
        found.alone_s.append(results["alone"][2])
        found.reuse_s.append(results["reuse"][2])
        found.overhead_s.append(overhead)
        found.macs.append(results["alone"][1] / max(1, results["reuse"][1]))
        found.share.append(reuse.share)
        found.difference.append(float((maps[0] != maps[1]).mean()))
        if len(found.share) == options.frames // 2:
            found.last = (image, maps[1], reused_pixels(memory, size))
    return found


def together(scenes):
    """The figures of several videos as those of one."""
    lists = ("alone_s", "reuse_s", "overhead_s", "macs", "share", "difference")
    return Found(
        **{name: [one for scene in scenes for one in getattr(scene, name)] for name in lists},
        bytes=max(scene.bytes for scene in scenes),
    )


def reused_pixels(memory, size):
    """Where the last frame kept its answers, (H, W) boolean."""
    kept = memory.kept_cells
    rows, columns = (
        (np.arange(length) * cells // length)
        for length, cells in zip(size, kept.shape, strict=True)
    )
    return kept[rows][:, columns]


def picture(path, videos):
    """A frame of each video: as it came, its classes, and in grey what was kept."""
    colours = np.array(
        [[int(c.color[i : i + 2], 16) for i in (1, 3, 5)] for c in CLASSES], np.uint8
    )
    rows = []
    for image, labels, kept in videos:
        shown = image.copy()
        shown[kept] = shown[kept] // 3 + 20
        rows.append(np.concatenate([image, colours[labels], shown], axis=1))
    Image.fromarray(np.concatenate(rows)).quantize(256).save(path, optimize=True)


def main():
    """Prints a line for each video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CamVid")
    parser.add_argument("--preset", default="w18", choices=["w18", "w48"])
    parser.add_argument("--size", default="360x480", help="HEIGHTxWIDTH, px")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16", "int8"])
    parser.add_argument("--ladder", action="store_true", help="climb the card's ladder")
    parser.add_argument("--videos", default="standing,clip")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1, help="of the standing camera's first scene")
    parser.add_argument("--scenes", type=int, default=1, help="of the standing camera")
    parser.add_argument("--moving", type=float, default=0.15, help="share that cut-outs cover")
    parser.add_argument("--max-age", type=int, default=30)
    parser.add_argument("--max-difference", type=float, default=0.05)
    parser.add_argument(
        "--spread", type=int, help="cells around a changed one, in place of what checks choose"
    )
    parser.add_argument("--motion", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--picture", type=Path, help="also draw what was kept here")
    options = parser.parse_args()
    if options.spread is not None:
        rule = bound.ReuseRule(4.0, options.spread, options.spread, 1.0)
        bound.LEVELS = (rule,) * len(bound.LEVELS)
    torch.set_num_threads(1)  # as in the server, where only kernels have threads
    size = tuple(int(side) for side in options.size.split("x"))
    checkpoint = checkpoint_of(options.preset)
    if not options.ladder:
        checkpoint = replace(checkpoint, card=replace(checkpoint.card, sides=()))
    engine = LadderEngine(NativeEngine(checkpoint, dtype=options.dtype))
    criteria = checkpoint.card.rung_criteria()
    if options.preset != "w18":
        cells = [n // 4 for n in (size[0] + -size[0] % 32, size[1] + -size[1] % 32)]
        shares = (*PAPER_MASKED, PAPER_MASKED[-1])
        criteria = [Painted(coherent_mask(share, *cells, seed=0)) for share in shares]
    print(machine(), engine.name, vars(options) | {"data": None})
    figures, pictures = {}, []
    for name in options.videos.split(","):
        seeds = range(options.seed, options.seed + (options.scenes if name == "standing" else 1))
        scenes = [race(name, seed, engine, criteria, options, size) for seed in seeds]
        found = together(scenes)
        ratios = [a / b for a, b in zip(found.alone_s, found.reuse_s, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        scores = [[100 * score.mean_iou for score in scene.scores] for scene in scenes]
        alone, reuse = map(statistics.mean, zip(*scores, strict=True))
        figures[name] = {
            "alone_fps": 1 / statistics.median(found.alone_s),
            "reuse_fps": 1 / statistics.median(found.reuse_s),
            "ratio": [low, middle, high],
            "ratio_of_sums": sum(found.alone_s) / sum(found.reuse_s),
            "overhead_ms": 1e3 * statistics.median(found.overhead_s),
            "macs_ratio": statistics.mean(found.macs),
            "share": statistics.mean(found.share),
            "difference": statistics.mean(found.difference),
            "miou_alone": alone,
            "miou_reuse": reuse,
            "miou_of_scenes": scores,
            "bytes": found.bytes,
        }
        pictures.append(scenes[0].last)
        print(
            f"{name}: {figures[name]['alone_fps']:.2f} frames a second alone, "
            f"{figures[name]['reuse_fps']:.2f} with reuse, ratio {middle:.2f} "
            f"({low:.2f} to {high:.2f}), of all {figures[name]['ratio_of_sums']:.2f}; "
            f"multiply-adds {figures[name]['macs_ratio']:.2f}; "
            f"share {figures[name]['share']:.2f}; differs {figures[name]['difference']:.4f}; "
            f"overhead {figures[name]['overhead_ms']:.1f} ms; {found.bytes / 1e6:.1f} MB"
            + (f"; mIoU {alone:.2f} and {reuse:.2f}" if options.preset == "w18" else ""),
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(figures))
    if options.picture:
        picture(options.picture, pictures)


if __name__ == "__main__":
    main()
