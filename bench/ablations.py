"""The paper's ablations on CamVid: criteria, filling, thresholds, sampling and heads.

    python bench/ablations.py sampling --data CAMVID     # trains the mask predictor (minutes)
    python bench/ablations.py criteria --data CAMVID     # the others in any order
    python bench/ablations.py filling --data CAMVID
    python bench/ablations.py thresholds --data CAMVID
    python bench/ablations.py heads --data CAMVID --seed 0 --steps 300   # and 1, 2

Weights are those of `weights/camvid-w18.safetensors`, unchanged. Thresholds are chosen on the split
`holdout` so that the last exit's multiply-adds are a given share of the unmasked ones; quality and
multiply-adds are then scored on every second frame of `test`, once. Results go into
docs/ablations.json, which `make paper` reads; what is there already is not measured again, so an
interrupted command goes on.
Multiply-adds are in the paper's convention, those of a mask predictor included.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from anytime_model import flops
from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.data.augment import SegmentationAugmentation
from anytime_model.data.camvid import CamVid
from anytime_model.data.loading import AugmentedSet, EpochOrder, epoch_batches, normalise
from anytime_model.data.loading import steps_per_epoch as steps_in
from anytime_model.engines.native.engine import NativeEngine
from anytime_model.errors import ConfigError
from anytime_model.evaluation.measure import evenly
from anytime_model.networks.base import State
from anytime_model.networks.hrnet.exits import RedesignedExit, concatenate
from anytime_model.networks.hrnet.masking import MaskedConv2d
from anytime_model.ops import upsample
from anytime_model.sampling import MaskPredictor, predictor_macs
from anytime_model.tasks import SEGMENTATION
from anytime_model.training import losses
from anytime_model.training.pipelines import Pipelines
from anytime_model.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "weights" / "camvid-w18.safetensors"
RESULTS = ROOT / "docs" / "ablations.json"
PREDICTOR = ROOT / "runs" / "sampling" / "predictor.safetensors"
IGNORE = 255

LEVELS = (0.7, 0.85, 0.55)
"""Of the unmasked multiply-adds at the last exit."""

RANGES = {  # where the threshold is sought, from the end that masks nothing
    "max_probability": (1.0, 0.2),
    "sampling": (-20.0, 20.0),
    "sampling, no noise": (-20.0, 20.0),
    "random": (0.0, 0.8),
    "entropy": (0.0, 2.0),
    "margin": (1.0, 0.0),
    "top_share": (0.0, 0.8),
}
LAMBDAS = {"learnt": None, "1": 1.0, "0.5": 0.5, "mean": 0.0, "zero": 4.5}
"""Of the interpolation: 0 is the plain mean of the 7x7 window; 4.5 leaves 7e-4 of it, so zeros."""
THRESHOLDS = (0.999, 0.998, 0.99, 0.98, 0.95, 0.9)


class PooledExit(RedesignedExit):
    """A redesigned exit whose coarsest features have the mean of its input, projected, added."""

    def __init__(self, widths, outputs, *, width, depth, maskable):
        super().__init__(widths, outputs, width=width, depth=depth, maskable=maskable)
        self.context = nn.Linear(sum(widths), width)

    def forward(self, branches, masks):
        """See `RedesignedExit`; masks are not supported, so None."""
        if masks is not None:
            raise ConfigError("a pooled exit has no masks; give None.")
        x = concatenate(branches)
        context = self.context(x.mean((2, 3)))[:, :, None, None]
        for layer in self.encoder:
            x = layer(F.avg_pool2d(x, 2))
        x = x + context
        for layer in self.decoder:
            x = layer(doubled(x))
        return self.predict(doubled(x))


def doubled(x):
    return upsample(x, (2 * x.shape[-2], 2 * x.shape[-1]))


HEADS = {  # by name: the kind, its depths at exits 1 to 3, and its width
    "3/2/1": (RedesignedExit, (3, 2, 1), 64),
    "1/1/1": (RedesignedExit, (1, 1, 1), 64),
    "3/3/3": (RedesignedExit, (3, 3, 3), 64),
    "3/2/1, 32 channels": (RedesignedExit, (3, 2, 1), 32),
    "3/2/1, 128 channels": (RedesignedExit, (3, 2, 1), 128),
    "3/2/1, pooled context": (PooledExit, (3, 2, 1), 64),
}
FRAMES = 117
"""Of the test split, every second one; every second pixel each way is scored."""
BATCH = 4
PENALTY = 0.05
"""Weight of the L1 norm of predicted masks."""


# Scores


class Scores:
    """Confusion counts of some maps over a split."""

    def __init__(self, maps, classes):
        self.counts = np.zeros((maps, classes, classes), np.int64)

    def add(self, index, predicted, labels):
        known = labels != IGNORE
        classes = self.counts.shape[1]
        pairs = labels[known].astype(np.int64) * classes + predicted[known]
        self.counts[index] += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def per_map(self):
        right = np.diagonal(self.counts, axis1=1, axis2=2)
        union = self.counts.sum(1) + self.counts.sum(2) - right
        return [
            float(100 * np.mean(r[u > 0] / u[u > 0])) for r, u in zip(right, union, strict=True)
        ]


def measured(engine, network, source, criteria, predictor=None, *, quality=True):
    """mIoU (%) and 2^30 multiply-adds after each exit, and the shares masked.

    Args:
        engine: computes.
        network: that it runs, for its masks.
        source: samples.
        criteria: one for each exit but the last.
        predictor: of the masks where it costs multiply-adds, or None.
        quality: whether to decode and score at all.
    """
    config = network.config
    scores = Scores(config.num_exits, config.outputs)
    gflops, masked = np.zeros(config.num_exits), np.zeros(config.num_exits - 1)
    for sample in source:
        run = engine.begin(sample.image)
        costs = flops.conv_costs(config, *sample.image.shape[:2])
        masks, macs, share = None, 0.0, 1.0
        for k, criterion in enumerate((*criteria, None)):
            macs += flops.stage_macs(costs, k + 1, masks)
            gflops[k] += macs / flops.GIGA / len(source)
            result = run.advance(criterion)
            if quality:
                scores.add(k, engine.decode(result).labels[1::2, 1::2], sample.labels[1::2, 1::2])
            if k < len(masked):
                if predictor is not None:
                    macs += predictor_macs(config, k + 1, share * result.active.size)
                masks = network.masks(torch.from_numpy(result.active)[None, None])
                share = result.active_share
                masked[k] += (1 - share) / len(source)
    found = {"gflops": rounded(gflops), "masked": rounded(masked)}
    if quality:
        found["quality"] = [round(x, 2) for x in scores.per_map()]
    return found


def rounded(values):
    return [round(float(x), 4) for x in values]


# The cache


class Results:
    """What has been measured, in docs/ablations.json."""

    def __init__(self, path, seconds):
        self._path, self._until = path, time.monotonic() + seconds

    def has(self, part, key):
        return key in self._read().get(part, {})

    def get(self, part, key, make):
        """A result, made now if it is not there; the command ends when its time is over."""
        found = self._read().get(part, {})
        if key in found:
            return found[key]
        if time.monotonic() > self._until:
            sys.exit(f"time is over before {part}, {key}: run the same command again")
        made = make()
        content = self._read()  # again, as another part may have been measured meanwhile
        content.setdefault(part, {})[key] = made
        self._path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        print(part, key, made, flush=True)
        return made

    def _read(self):
        return json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}


# Criteria, filling, thresholds


def criteria_of(name, value, predictor):
    if name.startswith("sampling"):
        return predictor.criteria([value] * 3, seed=None if "no noise" in name else 1)
    return (SEGMENTATION.criterion(name, value),) * 3


def sought(engine, network, source, name, target, predictor):
    """The threshold at which the last exit's multiply-adds are nearest to a target."""
    low, high = RANGES[name]
    for _ in range(7):
        value = (low + high) / 2
        found = measured(
            engine, network, source, criteria_of(name, value, predictor), predictor, quality=False
        )
        if found["gflops"][-1] > target:
            low = value
        else:
            high = value
    return (low + high) / 2


def opened(lam=None):
    """Engine and network of the shipped weights, all lambdas replaced if one is given."""
    checkpoint = load_checkpoint(WEIGHTS)
    if lam is not None:
        for layer in checkpoint.network.modules():
            if isinstance(layer, MaskedConv2d):
                layer.lam.fill_(lam)
    return NativeEngine(checkpoint), checkpoint.network


def load_predictor(config):
    predictor = MaskPredictor(config).requires_grad_(False)
    predictor.load_state_dict(load_file(PREDICTOR))
    return predictor


def criteria(data, results, _options):
    engine, network = opened()
    held, test = list(evenly(CamVid(data, "holdout"), 12)), Lazy(CamVid(data, "test"), FRAMES)
    plain = results.get("thresholds", "none", lambda: measured(engine, network, test, (None,) * 3))
    for level in LEVELS:
        for name in RANGES:
            predictor = None
            if name.startswith("sampling"):
                if not PREDICTOR.exists():
                    print(f"left out: {name}, as {PREDICTOR} is not trained")
                    continue
                predictor = load_predictor(network.config)

            def make(name=name, level=level, predictor=predictor):
                target = level * plain["gflops"][-1]
                value = sought(engine, network, held, name, target, predictor)
                chosen = criteria_of(name, value, predictor)
                found = measured(engine, network, test, chosen, predictor)
                return {"threshold": round(value, 5), **found}

            results.get("criteria", f"{name} at {level:g}", make)


def thresholds(data, results, _options):
    engine, network = opened()
    test = Lazy(CamVid(data, "test"), FRAMES)
    results.get("thresholds", "none", lambda: measured(engine, network, test, (None,) * 3))
    for value in THRESHOLDS:
        chosen = criteria_of("max_probability", value, None)
        results.get("thresholds", f"{value:g}", lambda c=chosen: measured(engine, network, test, c))


def filling(data, results, _options):
    test = Lazy(CamVid(data, "test"), FRAMES)
    lams = [float(m.lam) for m in opened()[1].modules() if isinstance(m, MaskedConv2d)]
    results.get("radius", "lambda", lambda: [round(min(lams), 3), round(max(lams), 3)])
    results.get("radius", "beyond 3x3", lambda: float(f"{beyond(min(lams), 1):.1e}"))
    for threshold in (0.9, 0.99):
        for name, lam in LAMBDAS.items():

            def make(lam=lam, threshold=threshold):
                engine, network = opened(lam)
                return measured(
                    engine, network, test, criteria_of("max_probability", threshold, None)
                )

            results.get("filling", f"{name} at {threshold:g}", make)


def beyond(lam, radius):
    """Share of the weight of a window of 9x9 that lies more than `radius` pixels away."""
    squared = np.add.outer(np.arange(-4, 5) ** 2, np.arange(-4, 5) ** 2)
    weights = np.exp(-(lam**2) * squared) * (squared > 0)
    inside = weights[4 - radius : 5 + radius, 4 - radius : 5 + radius].sum()
    return float((weights.sum() - inside) / weights.sum())


class Lazy:
    """Evenly spaced samples of a split, read anew each time they are gone through."""

    def __init__(self, source, count):
        self._source, self._count = source, count

    def __len__(self):
        return self._count

    def __iter__(self):
        return evenly(self._source, self._count)


# Trainings: the network stays as it is


def batches(data, augmentation, steps, seed):
    """So many augmented batches of the split `fit`."""
    recipe = replace(
        RECIPES["camvid-w18"], augmentation=augmentation, last_epochs=None, steps=steps, batch=BATCH
    )
    source = CamVid(data, recipe.split)
    each = steps_in(len(source), BATCH)
    loaded = AugmentedSet(source, Pipelines(recipe.ending_after(each), None), seed)
    made = 0
    for epoch in range(steps):
        for batch in epoch_batches(loaded, EpochOrder(len(source), BATCH, epoch, seed), 0):
            yield batch
            made += 1
            if made == steps:
                return


def sampling(data, results, options):
    """Train the mask predictor alone: the loss of exits 2 to 4, and an L1 penalty on its masks.

    Exits weigh 0.5, 0.5, 0.5 and 1, the penalties 1/3, 2/3 and 1, as in the paper's appendix C.
    There the penalty is 0.1. Here the network is not trained; at 0.1 the last stage is left at 7 %
    of its positions after 20 steps, at 0.02 everything is computed. 0.05 lies between.
    """
    torch.manual_seed(0)
    network = load_checkpoint(WEIGHTS).network.eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, MaskedConv2d):
            layer.train()  # leaves out taps of negligible weight
    predictor = MaskPredictor(network.config)
    optimiser = torch.optim.Adam(predictor.parameters(), lr=2e-4)
    augmentation = SegmentationAugmentation((128, 160), (0.7, 1.3), colour=0.3)
    began, log = time.monotonic(), []
    for step, batch in enumerate(batches(data, augmentation, options.steps, 0)):
        for group in optimiser.param_groups:
            group["lr"] = 2e-4 * min(1.0, 3 * (1 - step / options.steps))
        maps, soft = soft_run(network, predictor, normalise(batch.images))
        terms = losses.per_exit(losses.CrossEntropy(strides=(4,) * 3), maps[1:], batch, step)
        means = torch.stack([mask.mean() for mask in soft])
        penalty = PENALTY * (means @ means.new_tensor([1 / 3, 2 / 3, 1]))
        loss = terms @ terms.new_tensor([0.5, 0.5, 1.0]) + penalty
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        log.append([float(terms[-1].detach()), *means.tolist()])
        if step % 20 == 19:
            last, *share = np.mean(log[-20:], axis=0)
            print(f"step {step + 1}: loss {last:.3f}, computed {np.round(share, 3)}", flush=True)
    PREDICTOR.parent.mkdir(parents=True, exist_ok=True)
    save_file(predictor.state_dict(), PREDICTOR)
    minutes = round((time.monotonic() - began) / 60, 1)
    shares = [round(float(x), 3) for x in share]
    made = {"steps": options.steps, "batch": BATCH, "minutes": minutes, "computed": shares}
    results.get("sampling", "trained", lambda: made)


def soft_run(network, predictor, images):
    """The maps of all exits with soft random masks, and the masks that were predicted."""
    state, maps, soft = network.begin(images), [], []
    for exit_ in range(1, state.num_exits + 1):
        features, logits = network.run_to(state, exit_, lambda: None)
        if state.active is not None:
            logits = torch.lerp(state.logits, logits, state.active)
        maps.append(logits)
        active = state.active
        if exit_ < state.num_exits:
            soft.append(predictor.soft(features, exit_, 1.0))
            active = soft[-1] if active is None else active * soft[-1]
        state = State(state.image_size, exit_, state.num_exits, features, logits, active)
    return maps, soft


def heads(data, results, options):
    """Train new early heads on the frozen features of the shipped weights: depths and widths.

    Images at 240x180; all arms see the same batches in the same order. They share nothing, so those
    that are measured already are left out.
    """
    wanted = {n: h for n, h in HEADS.items() if not results.has("heads", seeded(n, options))}
    if not wanted:
        return
    torch.manual_seed(options.seed)
    network = load_checkpoint(WEIGHTS).network.eval().requires_grad_(False)
    widths = network.config.size.stage_widths
    arms = {
        (name, k): kind(
            widths[k], network.config.outputs, width=width, depth=depths[k], maskable=False
        )
        for name, (kind, depths, width) in wanted.items()
        for k in range(3)
    }
    parameters = [p for head in arms.values() for p in head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
    augmentation = SegmentationAugmentation((160, 224), (0.4, 0.65), colour=0.3)
    for step, batch in enumerate(batches(data, augmentation, options.steps, options.seed)):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20, 2 * (1 - step / options.steps))
        stages = features_of(network, normalise(batch.images))
        target = batch.labels[:, 2::4, 2::4].long()
        loss = sum(
            F.cross_entropy(head(stages[k], None), target, ignore_index=IGNORE)
            for (_, k), head in arms.items()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 19:
            print(f"step {step + 1}: loss {float(loss.detach()) / len(arms):.3f}", flush=True)
    scores = Scores(len(arms), network.config.outputs)
    for head in arms.values():
        head.eval()
    test = Lazy(CamVid(data, "test"), 233)
    with torch.no_grad():
        for sample in test:
            image = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None]
            stages = features_of(network, upsample(normalise(image), (180, 240)))
            for i, ((_, k), head) in enumerate(arms.items()):
                map_ = head(stages[k], None)
                size = (2 * map_.shape[-2], 2 * map_.shape[-1])
                found = upsample(map_, size)[0, :, :90, :120].argmax(0).numpy()
                scores.add(i, found, sample.labels[2::4, 2::4])
    found = dict(zip(arms, scores.per_map(), strict=True))
    for name, (_, depths, width) in wanted.items():
        config = replace(network.config, depths=depths, head_width=width)
        gflops = [x / flops.GIGA for x in flops.per_exit(flops.conv_costs(config, 180, 240))]
        row = {
            "quality": [round(found[name, k], 2) for k in range(3)],
            "gflops": [round(x, 4) for x in gflops[:3]],
            "steps": options.steps,
        }
        results.get("heads", seeded(name, options), lambda row=row: row)


def seeded(name, options):
    return f"{name}, seed {options.seed}"


def features_of(network, images):
    """What the first three exits read."""
    state, found = network.begin(images), []
    with torch.no_grad():
        for _ in range(3):
            state = network.advance(state)
            found.append(state.features)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {f.__name__: f for f in (sampling, criteria, filling, thresholds, heads)}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--data", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no measurement after")
    parser.add_argument("--steps", type=int, default=160, help="of a training")
    parser.add_argument("--seed", type=int, default=0, help="of the heads' training")
    options = parser.parse_args()
    parts[options.part](options.data, Results(RESULTS, options.seconds), options)


if __name__ == "__main__":
    main()
