"""The recipes: one for each row of the paper's tables, and those of the shipped weights.

Published rows follow the paper's appendices C and D, and HRNet's own configuration where the paper
refers to it. They start from ImageNet weights there: give such a backbone with `--init`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from anytime_model.data.augment import PoseAugmentation, SegmentationAugmentation
from anytime_model.networks.base import FamilyConfig
from anytime_model.networks.hrnet.config import NetworkConfig
from anytime_model.networks.lite.config import LiteConfig
from anytime_model.networks.mdeq.config import MdeqConfig
from anytime_model.training.losses import CrossEntropy, HeatmapError
from anytime_model.training.recipe import Adam, Adaptivity, LastEpochs, MuonSettings, Recipe, Sgd
from anytime_model.training.schedules import Poly, Steps, WarmStableDecay

_THIRD = 1 / 3


def _rows(adpc: Recipe) -> Iterable[Recipe]:
    """A table's rows from its last: early exits (EE), with redesigned heads (EE + RH), ADP-C."""
    plain = replace(adpc, adaptivity=None)
    yield replace(plain, name=f"{adpc.name}-ee", network=_original(plain.network))
    yield replace(plain, name=f"{adpc.name}-ee-rh")
    yield replace(adpc, name=f"{adpc.name}-adpc")


def _original(config: FamilyConfig) -> NetworkConfig:
    """The same HRNet with original early exits."""
    if not isinstance(config, NetworkConfig):
        raise TypeError(f"the family {config.family} has no original exits")
    return replace(config, exits="original")


def _cityscapes(preset: str) -> Recipe:
    """Appendix C; Table 1 and Figure 3."""
    return Recipe(
        name=f"cityscapes-{preset}",
        data="cityscapes",
        split="train",
        check_split="val",
        network=NetworkConfig(preset, outputs=19),
        augmentation=SegmentationAugmentation((512, 1024), (0.5, 2.0)),
        loss=CrossEntropy(),
        optimiser=Sgd(0.01, weight_decay=5e-4),
        schedule=Poly(0.9),
        epochs=484,
        batch=12,
        adaptivity=Adaptivity((0.998, 0.998, 0.998)),
    )


_MPII = Recipe(  # appendix C; Table 2
    name="mpii-w32",
    data="mpii",
    split="train",
    check_split="val",
    network=NetworkConfig("w32", outputs=16, task="pose"),
    augmentation=PoseAugmentation((256, 256), 0.25, 30.0, 0.6),
    loss=HeatmapError(sigma=2.0),
    optimiser=Adam(1e-3, weight_decay=1e-4),
    schedule=Steps((170, 200)),
    epochs=210,
    batch=128,
    adaptivity=Adaptivity((0.002, 0.002, 0.002), from_epoch=10),
)

_CONTEXT = Recipe(  # appendix D; Table 5, whose counts have exits of 64 channels
    name="pascal-context-w48",
    data="pascal-context",
    split="train",
    check_split="val",
    network=NetworkConfig("w48", outputs=59, head_width=64),
    augmentation=SegmentationAugmentation((480, 480), (0.5, 2.0)),
    loss=CrossEntropy(),
    optimiser=Sgd(0.004, weight_decay=1e-4),
    schedule=Poly(0.9),
    epochs=200,
    batch=16,
    adaptivity=Adaptivity((0.995, 0.995, 0.995)),
)


def _context_rows() -> Iterable[Recipe]:
    """Early exits alone are weighted by a third, or they would cost the last one too much."""
    for row in _rows(_CONTEXT):
        early = row.network == _original(row.network)
        yield replace(row, exit_weights=(_THIRD, _THIRD, _THIRD, 1.0)) if early else row


_CAMVID = Recipe(
    name="camvid-w18",
    data="camvid",
    split="fit",
    check_split="holdout",
    network=NetworkConfig("w18", outputs=11),
    augmentation=SegmentationAugmentation((224, 320), (0.6, 1.9), colour=0.5, blur=0.1),
    loss=CrossEntropy(strides=(4, 4, 4, 2), balance=True, overlap=1.0),
    optimiser=MuonSettings(0.02, Adam(2e-3, decoupled=True), weight_decay=0.05),
    schedule=WarmStableDecay(decay_epochs=14, warmup_steps=150),
    epochs=150,
    batch=8,
    last_epochs=LastEpochs(
        10, SegmentationAugmentation((288, 384), (0.8, 2.2), colour=0.5, blur=0.1)
    ),
    adaptivity=Adaptivity((0.98, 0.98, 0.98), from_epoch=-14),
    average=0.99,
    clip=5.0,
    half=True,
)

_LSPET = Recipe(
    name="lspet-w18",
    data="lspet",
    split="train",
    check_split="val",
    network=NetworkConfig("w18", outputs=14, task="pose"),
    augmentation=PoseAugmentation((96, 96), 0.25, 30.0, 0.6, 0.06, colour=0.3, blur=0.1),
    loss=HeatmapError(sigma=1.5, localisation=0.002),
    optimiser=MuonSettings(0.02, Adam(2e-3, decoupled=True), weight_decay=0.05),
    schedule=WarmStableDecay(decay_epochs=3, warmup_steps=150),
    epochs=60,
    batch=16,
    last_epochs=LastEpochs(
        3, PoseAugmentation((128, 128), 0.25, 30.0, 0.6, 0.06, colour=0.3, blur=0.1)
    ),
    adaptivity=Adaptivity((0.01, 0.01, 0.01), from_epoch=-1),
    average=0.99,
    clip=5.0,
    half=True,
)

_CAMVID_LITE = Recipe(
    name="camvid-lite",
    data="camvid",
    split="fitval",
    check_split="holdout",
    network=LiteConfig("lite0", outputs=11),
    augmentation=SegmentationAugmentation((256, 352), (0.4, 1.7), colour=0.4, blur=0.1),
    loss=CrossEntropy(strides=(4, 4, 4, 2), balance=True, overlap=1.0),
    optimiser=Adam(1.5e-3, weight_decay=0.02, decoupled=True, stages=0.3),
    schedule=WarmStableDecay(decay_epochs=10, warmup_steps=100),
    epochs=40,
    batch=8,
    average=0.995,
    clip=5.0,
    pretrained=True,
)

_CAMVID_LITE_LIGHT = replace(  # goes on from the weights that `camvid-lite` makes, with --init
    _CAMVID_LITE,
    name="camvid-lite-light",
    split="fitval",
    augmentation=SegmentationAugmentation(
        (256, 352), (0.4, 1.7), colour=0.6, blur=0.15, light=0.35
    ),
    optimiser=Adam(1e-3, weight_decay=0.05, decoupled=True, stages=0.3),
    schedule=WarmStableDecay(decay_epochs=5, warmup_steps=40),
    steps=400,
    average=0.985,
    pretrained=False,
    seed=1,
)

_CAMVID_TAUGHT = replace(  # goes on from the weights of `camvid-w18`, with --init
    _CAMVID,
    name="camvid-w18-taught",
    split="fitval",
    augmentation=SegmentationAugmentation((224, 320), (0.4, 1.4), colour=0.5, blur=0.1, light=0.2),
    optimiser=Adam(6e-4, weight_decay=0.02, decoupled=True),
    schedule=WarmStableDecay(decay_epochs=4, warmup_steps=20),
    steps=500,
    last_epochs=None,
    adaptivity=Adaptivity((0.99, 0.99, 0.99)),
    average=0.98,
    half=False,
    taught=1.0,
    seed=2,
)

_CAMVID_MDEQ = Recipe(  # the paper's first baseline, at a size that two cores can train
    name="camvid-mdeq",
    data="camvid",
    split="fit",
    check_split="holdout",
    network=MdeqConfig("tiny", outputs=11),
    augmentation=SegmentationAugmentation((128, 160), (0.35, 0.75), colour=0.4, blur=0.1),
    loss=CrossEntropy(strides=(4, 4, 4, 2), balance=True, overlap=1.0),
    optimiser=Adam(4e-3, weight_decay=0.02, decoupled=True),
    schedule=WarmStableDecay(decay_epochs=12, warmup_steps=100),
    epochs=60,
    batch=8,
    average=0.99,
    clip=5.0,
)

_LSPET_TAUGHT = replace(  # goes on from the weights of `lspet-w18`, with --init
    _LSPET,
    name="lspet-w18-taught",
    augmentation=PoseAugmentation((96, 96), 0.3, 35.0, 0.6, 0.08, colour=0.3, blur=0.1),
    optimiser=MuonSettings(0.01, Adam(1e-3, decoupled=True), weight_decay=0.05),
    schedule=WarmStableDecay(decay_epochs=1.5, warmup_steps=50),
    steps=2140,
    last_epochs=LastEpochs(
        3, PoseAugmentation((128, 128), 0.3, 35.0, 0.6, 0.08, colour=0.3, blur=0.1)
    ),
    half=False,
    keypoints=True,
    seed=3,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        *_rows(_cityscapes("w48")),
        *_rows(_cityscapes("w18")),
        *_rows(_MPII),
        *_context_rows(),
        _CAMVID,
        _CAMVID_TAUGHT,
        *_rows(_CAMVID),
        _CAMVID_LITE,
        _CAMVID_LITE_LIGHT,
        _CAMVID_MDEQ,
        _LSPET,
        *_rows(_LSPET),
        _LSPET_TAUGHT,
    )
}
