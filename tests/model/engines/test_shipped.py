"""The shipped weights on images: the fastest engine against the definition."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anytime_model.checkpoint.manifest import read_manifest
from anytime_model.checkpoint.store import load_model
from anytime_model.engines.select import make_network_engine
from anytime_model.engines.torch_engine import TorchEngine
from model.comparing import TOLERANCE, native_isas

ROOT = Path(__file__).parents[3]
WEIGHTS = ROOT / "weights"
IMAGES = sorted((ROOT / "client" / "web" / "samples").glob("*.[jp][pn]g"))
CARDS = [
    card
    for card in (read_manifest(WEIGHTS) if (WEIGHTS / "manifest.toml").exists() else {}).values()
    if (WEIGHTS / card.file).exists()
]
ROUNDING = 2e-5
"""A confidence this near a threshold may fall on either side of it."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (native_isas() and CARDS and IMAGES), reason="no kernels, weights or images here"
    ),
]


def pairs():
    """Each model on each image."""
    for card, path in itertools.product(CARDS, IMAGES):
        yield pytest.param(card, path, id=f"{card.name}-{path.stem}")


@pytest.mark.parametrize(("card", "path"), list(pairs()))
def test_maps_and_masks_agree_on_images(card, path):
    checkpoint = load_model(card, WEIGHTS)
    image = np.array(Image.open(path).convert("RGB"))[:240, :320]
    fastest = make_network_engine(checkpoint, "auto", precision="f32")
    runs = [engine.begin(image) for engine in (fastest, TorchEngine(checkpoint))]
    for criterion in card.criteria():
        ours, theirs = (run.advance(criterion) for run in runs)
        undecided = ours.active != theirs.active
        if criterion is not None:
            threshold = criterion.threshold
            assert (np.abs(theirs.confidence - threshold)[undecided] < ROUNDING).all()
        if undecided.any():
            pytest.skip("a confidence lies within rounding of its threshold")
        largest = np.abs(theirs.logits).max()
        assert np.abs(ours.logits - theirs.logits).max() <= TOLERANCE * largest


@pytest.mark.parametrize(
    ("card", "path"), [one for one in pairs() if one.values[0].int8 is not None]
)
def test_int8_says_nearly_what_float32_says(card, path):
    checkpoint = load_model(card, WEIGHTS)
    image = np.array(Image.open(path).convert("RGB"))[:240, :320]
    exact, quantised = (
        make_network_engine(checkpoint, "native", precision=precision).begin(image)
        for precision in ("f32", "int8")
    )
    for _ in range(card.config.num_exits):
        ours, theirs = quantised.advance().logits, exact.advance().logits
        assert np.square(ours - theirs).mean() < 0.03 * np.square(theirs - theirs.mean()).mean()
        if card.task.has_classes:
            assert (ours.argmax(0) != theirs.argmax(0)).mean() < 0.06
