"""Tiny networks, checkpoints, programs, images and masks that the tests of the model share."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from anytime_model.checkpoint import Card, Checkpoint, Label, Masking, save_checkpoint
from anytime_model.checkpoint.key_map import Names
from anytime_model.confidence import RandomShare
from anytime_model.engines.native.lowering import lower
from anytime_model.evaluation.measure import MeasureSettings
from anytime_model.kernels.handles import ModelHandle, PlanHandle
from anytime_model.kernels.library import Op, Slot, load
from anytime_model.networks.hrnet import AnytimeNetwork, NetworkConfig
from anytime_model.networks.lite import LiteConfig, LiteNetwork
from anytime_model.tasks import TASKS

GOLDEN = Path(__file__).parent / "golden"


def tiny_network(task="segmentation", exits="redesigned", outputs=5, seed=0, **changes):
    """A network of random weights, in evaluation mode.

    Normalisation is not the identity, and every logit varies by about 2 around 0, so that
    thresholds bite.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = AnytimeNetwork(
        NetworkConfig("tiny", outputs, task=task, exits=exits, **changes)
    ).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("norm.bias", "predict.bias")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            if name.endswith(".lam"):
                parameter.fill_(0.8)
        for exit_, state in zip(network.exits, network(random_image()), strict=True):
            mean = state.logits.mean(dim=(0, 2, 3))
            scale = 2.0 / (state.logits - mean[:, None, None]).std()
            exit_.predict.weight.mul_(scale)
            exit_.predict.bias.sub_(mean).mul_(scale)
    return network.requires_grad_(False)


def random_image(batch=1, height=64, width=96, seed=0):
    """A smooth random normalised batch, (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((batch, 3, height // 16 + 1, width // 16 + 1), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def random_pixels(height=48, width=80, seed=0):
    """An (H, W, 3) uint8 image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiny_card(task="segmentation", outputs=5, name="tiny", **changes):
    """A card for `tiny_network` with the same arguments."""
    thresholds = {"pose": (0.0,) * 3, "segmentation": (0.6,) * 3}
    masking = Masking(TASKS[task].first_criterion, thresholds[task])
    return Card(
        name=name,
        file=f"{name}.safetensors",
        sha256=hashlib.sha256(b"").hexdigest(),
        config=NetworkConfig("tiny", outputs, task=task, **changes),
        labels=tuple(Label(f"label {i}", f"#{40 * i:02x}80ff") for i in range(outputs)),
        masking=masking,
        skeleton=((0, 1), (1, 2)) if task == "pose" else (),
        licence="none",
        description="made up for tests",
    )


def save_tiny(folder, task="segmentation", name="tiny", seed=0):
    """Write a tiny checkpoint and its manifest entry; returns its card."""
    return save_checkpoint(tiny_network(task, seed=seed), tiny_card(task, name=name), folder)


def tiny_checkpoint(task="segmentation", **changes):
    """A tiny network of random weights with its card."""
    return Checkpoint(tiny_network(task, **changes), tiny_card(task, **changes))


def with_ladder(checkpoint, *sides, **changes):
    """A checkpoint whose card has a ladder, and other changes."""
    return replace(checkpoint, card=replace(checkpoint.card, sides=sides, **changes))


def smooth_pixels(height, width, seed=0):
    """An (H, W, 3) uint8 image whose map varies: parts of it are sure and parts are not."""
    values = random_image(1, height, width, seed)[0].permute(1, 2, 0).numpy()
    return (110 + 55 * values).clip(0, 255).astype(np.uint8)


def plan_maker(isa=None, *, winograd=True, network=None, **changes):
    """Plans of a tiny program, each with what a function changes of its slots and operations.

    Without Winograd, nine products make a sum of a 3x3 convolution everywhere.
    """
    program = lower(network or tiny_checkpoint(**changes).network)
    library = load()
    model = ModelHandle(library, isa or library.isas[-1])
    for conv in program.convs:
        if conv.depthwise:
            model.add_depthwise(conv.weights, conv.stride)
        else:
            dense = winograd and conv.dense
            model.add_conv(conv.weights, conv.stride, before=conv.before, dense=dense)
    for norm in program.norms:
        model.add_norm(norm.bias, norm.shift, norm.window)

    def make(change=lambda slots, ops: None, size=(64, 96), heads=program.heads):
        slots = [Slot(b.level, b.channels, b.floats, b.storage) for b in program.buffers]
        ops = []
        for o in program.operations:
            op = Op(
                o.kind, o.where, o.conv, o.norm, o.activation, o.keep, o.out, o.first, o.residual
            )
            op.pool, op.fused, op.tiled = o.pool, o.fused, o.tiled
            op.inputs = len(o.sources)
            for i, source in enumerate(o.sources):
                op.sources[i] = source
            ops.append(op)
        change(slots, ops)
        return PlanHandle(model, size, slots, ops, program.ends, heads=heads)

    return make


def one_change(rng):
    """For a plan maker: one field of one operation, drawn at random, gets a value that is."""
    fields = ["kind", "where", "conv", "norm", "keep", "out", "first", "residual", "fused", "tiled"]

    def change(slots, ops):
        op = ops[rng.integers(len(ops))]
        setattr(op, fields[rng.integers(len(fields))], int(rng.integers(-1, 12)))

    return change


def masks(height, width):
    """Masks (h, w) that try every path: by name."""
    rng = np.random.default_rng(5)
    corner, line, middle = (np.zeros((height, width), np.bool_) for _ in range(3))
    corner[-1, -1] = True
    line[:, width // 2] = True
    middle[height // 2 | 1, width // 2 | 1] = True  # no coarser level sees an odd position
    return {
        "nothing": np.zeros((height, width), np.bool_),
        "everything": np.ones((height, width), np.bool_),
        "a corner": corner,
        "one odd pixel": middle,
        "a line": line,
        "borders": ~np.pad(np.ones((height - 2, width - 2), np.bool_), 1),
        "scattered": rng.random((height, width)) < 0.15,
        "dense": rng.random((height, width)) < 0.85,
    }


def published(network, *, lambdas=True, last="last_layer"):
    """The network's tensors under the names of the authors' files."""
    keys = frozenset({"final_layer.weight"}) if last == "final_layer" else frozenset()
    names = Names(network.config, keys)
    return {
        names.of(ours): tensor.clone()
        for ours, tensor in network.state_dict().items()
        if not ours.endswith("num_batches_tracked") and (lambdas or not ours.endswith(".lam"))
    }


def with_masks(share: float) -> MeasureSettings:
    """Measure with this share of positions, drawn at random, masked before each later exit."""
    masks = RandomShare(share)
    return MeasureSettings(
        criteria=(masks, masks, masks, None), criterion="random", thresholds=(share,) * 3
    )


def tiny_lite(outputs=5, seed=0, **changes):
    """A lite network of random weights, in evaluation mode, whose logits vary by about 2."""
    torch.manual_seed(seed)
    network = LiteNetwork(LiteConfig("tiny", outputs, **changes)).train()
    with torch.no_grad():
        for _ in range(3):  # statistics near those of its features, or depth wipes them out
            for layer in network.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = None
            network(random_image(batch=2, height=128, width=128, seed=seed))
        network.eval()
        for exit_, state in zip(network.exits, network(random_image()), strict=True):
            mean = state.logits.mean(dim=(0, 2, 3))
            scale = 2.0 / (state.logits - mean[:, None, None]).std()
            exit_.predict.weight.mul_(scale)
            exit_.predict.bias.sub_(mean).mul_(scale)
    return network.requires_grad_(False)


def lite_checkpoint(task="segmentation", **changes):
    """A tiny lite network with its card."""
    network = tiny_lite(task=task, **changes)
    return Checkpoint(network, replace(tiny_card(task), config=network.config))
