"""The paper's systems trained with equal small budgets on CamVid (Tables 1, 3, 4, Figure 3).

    python bench/systems.py "EE + RH" --data CAMVID --seed 0     # names: see SYSTEMS; seeds 0, 1, 2

Every system starts from the stages of `weights/camvid-w18.safetensors`, learnt lambdas included,
and from new heads at all four exits, of the same random weights where their shapes are the same.
Those stages have learnt with redesigned exits and with masks, so no system starts without that.
The same crops follow in the same order, with the same loss, optimiser and schedule. Then
normalisation statistics are measured anew, with the system's masks, and every second frame of
`test` is scored once, as in `ablations.py`. Confidence masks where the largest probability is at
least `THRESHOLD`, fixed beforehand, in training and at inference; nothing is calibrated.

Results go into docs/ablations.json; what is there already is not trained again.
"""

import argparse
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from ablations import FRAMES, LAMBDAS, RESULTS, WEIGHTS, Lazy, Results, batches, measured, soft_run

from anytime_model import flops
from anytime_model.checkpoint.store import Checkpoint, load_checkpoint
from anytime_model.data.augment import SegmentationAugmentation
from anytime_model.data.camvid import CamVid
from anytime_model.data.loading import normalise
from anytime_model.engines.native.engine import NativeEngine
from anytime_model.networks.base import build_network
from anytime_model.networks.hrnet.masking import MaskedConv2d
from anytime_model.sampling import MaskPredictor
from anytime_model.tasks import SEGMENTATION
from anytime_model.training import losses
from anytime_model.training.recipe import Adam
from anytime_model.training.recipes import RECIPES
from anytime_model.training.schedules import Poly
from anytime_model.training.statistics import refresh
from anytime_model.training.train_step import build_optimisers

THRESHOLD = 0.99
"""The one of the card of `camvid-w18`."""
STEPS = 120
STATISTICS_STEPS = 20
AUGMENTATION = SegmentationAugmentation((192, 256), (0.7, 1.4), colour=0.3)
OPTIMISER = Adam(1.5e-3, weight_decay=0.02, decoupled=True, stages=0.3)
SCHEDULE = Poly(warmup_steps=20)
CLIP = 5.0
PENALTY = 0.1
"""Weight of the L1 norm of sampled masks, as in the paper's appendix C."""


@dataclass(frozen=True)
class System:
    """What one system has and is trained with.

    Attributes:
        exits: "original" or "redesigned".
        exit_weights: of the losses.
        masks: in training and at inference: None, "confidence" or "sampling".
        lam: of all interpolations, which then do not learn it; None for learnt ones.
        also: masks of a second scoring of the same weights, by the name of its row.
    """

    exits: str = "redesigned"
    exit_weights: tuple = (1.0, 1.0, 1.0, 1.0)
    masks: str | None = None
    lam: float | None = None
    also: tuple = ()


SYSTEMS = {
    "one exit": System(exit_weights=(0.0, 0.0, 0.0, 1.0)),
    "EE": System(exits="original"),
    "EE + RH": System(also=(("EE + RH, masks at inference only", "confidence"),)),
    "ADP-C": System(masks="confidence"),
    "ADP-C, filled with zeros": System(masks="confidence", lam=LAMBDAS["zero"]),
    "ADP-C, filled with means": System(masks="confidence", lam=LAMBDAS["mean"]),
    "stochastic sampling": System(exit_weights=(0.5, 0.5, 0.5, 1.0), masks="sampling"),
}


class Model(torch.nn.Module):
    """The network of a system and, if its masks are sampled, their predictor."""

    def __init__(self, system, stages):
        super().__init__()
        self.system = system
        self.network = build_network(replace(stages.config, exits=system.exits))
        self.network.stages.load_state_dict(stages.stages.state_dict())
        self.network.to(memory_format=torch.channels_last)
        sampled = system.masks == "sampling"
        self.predictor = MaskPredictor(stages.config) if sampled else None
        if system.lam is not None:
            for layer in self.network.modules():
                if isinstance(layer, MaskedConv2d):
                    layer.lam.data.fill_(system.lam)
                    layer.lam.requires_grad_(False)

    def criteria(self, masks):
        """Of each exit but the last, at inference."""
        if masks == "sampling":
            return self.predictor.criteria([0.0] * 3, seed=1)
        return ((SEGMENTATION.criterion("max_probability", THRESHOLD) if masks else None),) * 3

    def forward(self, images):
        """The maps of all exits in training, and a penalty on what is computed."""
        if self.predictor is None:
            states = self.network(images, self.criteria(self.system.masks))
            return [state.logits for state in states], 0.0
        maps, soft = soft_run(self.network, self.predictor, images)
        means = torch.stack([mask.float().mean() for mask in soft])
        return maps, PENALTY * (means @ means.new_tensor([1 / 3, 2 / 3, 1]))


def trained(system, data, steps, seed):
    """A model after so many steps, in evaluation mode."""
    torch.manual_seed(seed)
    model = Model(system, load_checkpoint(WEIGHTS).network).train()
    weights = losses.balanced_weights(CamVid(data, "fit"))
    optimisers = build_optimisers(model, OPTIMISER)
    for step, batch in enumerate(batches(data, AUGMENTATION, steps, seed)):
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * SCHEDULE.factor(step, steps, steps)
        with torch.autocast("cpu", torch.bfloat16):
            maps, penalty = model(normalise(batch.images))
        terms = losses.per_exit(
            RECIPES["camvid-w18"].loss, maps, batch, step, class_weights=weights
        )
        loss = terms @ terms.new_tensor(system.exit_weights) + penalty
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP, error_if_nonfinite=True)
        for optimiser in optimisers:
            optimiser.step()
        if step % 20 == 19:
            print(f"step {step + 1}: losses {[round(x, 3) for x in terms.tolist()]}", flush=True)
    model.requires_grad_(False)
    others = batches(data, AUGMENTATION, STATISTICS_STEPS, seed + 1000)
    refresh(model.network, others, (*model.criteria(system.masks), None), half=True)
    return model


def scored(model, masks, card, data):
    """Quality, computation and masked shares on every second frame of the test split."""
    network = model.network
    engine = NativeEngine(Checkpoint(network, replace(card, config=network.config)))
    test = Lazy(CamVid(data, "test"), FRAMES)
    found = measured(engine, network, test, model.criteria(masks), model.predictor)
    if not any(model.system.exit_weights[:-1]):
        costs = flops.conv_costs(network.config, *next(iter(test)).image.shape[:2])
        gflops = round(flops.one_exit(costs) / flops.GIGA, 4)
        found = {"quality": found["quality"][-1:], "gflops": [gflops]}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--data", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no training after")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0, help="of heads and crops")
    options = parser.parse_args()
    results, card = Results(RESULTS, options.seconds), load_checkpoint(WEIGHTS).card
    system = SYSTEMS[options.system]

    @cache
    def model():
        began = time.monotonic()
        made = trained(system, options.data, options.steps, options.seed)
        print(f"trained in {time.monotonic() - began:.0f} s", flush=True)
        return made

    for name, masks in ((options.system, system.masks), *system.also):

        def make(masks=masks):
            return {"steps": options.steps, **scored(model(), masks, card, options.data)}

        results.get("systems", f"{name}, seed {options.seed}", make)


if __name__ == "__main__":
    main()
