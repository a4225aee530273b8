"""A fitted engine hides the size that its model wants: images and results keep their own frame."""

from dataclasses import replace

import numpy as np
import pytest

from anytime_model.engines.fitted import FittedEngine, fit, fitted_size
from anytime_model.engines.select import make_engine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import InputError
from anytime_model.networks.base import Prior
from anytime_model.results import Keypoints, SegmentationMap
from model.comparing import run
from model.factories import smooth_pixels, tiny_checkpoint


class OneJoint(TorchEngine):
    """Runs a network, and then says that a joint is at a share of the width and height."""

    def __init__(self, at=(0.5, 0.5)):
        super().__init__(tiny_checkpoint("pose"))
        self.at = np.array(at)
        self.shown = []

    def begin(self, image, prior=None):
        self.shown.append(image)
        return super().begin(image, prior)

    def decode(self, result):
        xy = self.at * result.image_size[::-1] - 0.5
        return Keypoints(np.array([[*xy, 0.5]], np.float32))


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((160, 160), 128, (128, 128)),
        ((300, 100), 128, (128, 43)),
        ((10, 20), 128, (64, 128)),
        ((4000, 1), 128, (128, 1)),
        ((37, 50), None, (37, 50)),
    ],
)
def test_the_longer_side_is_fitted_and_the_other_follows(size, side, expected):
    assert fitted_size(size, side) == expected


def test_an_image_of_the_right_size_gives_what_the_engine_gives():
    engine = TorchEngine(tiny_checkpoint("pose"))
    image = smooth_pixels(64, 96)
    for ours, theirs in zip(run(FittedEngine(engine, 96), image), run(engine, image), strict=True):
        np.testing.assert_array_equal(ours.logits, theirs.logits)
        np.testing.assert_array_equal(ours.active, theirs.active)
        assert (ours.exit, ours.macs) == (theirs.exit, theirs.macs)


@pytest.mark.parametrize(("height", "width"), [(192, 288), (61, 96), (40, 60), (500, 96)])
def test_joints_come_back_to_where_they_are_in_the_image(height, width):
    inner = OneJoint()
    fitted = FittedEngine(inner, 96)
    result = run(fitted, smooth_pixels(height, width))[-1]
    found = fitted.decode(result)
    assert isinstance(found, Keypoints)
    assert max(inner.shown[0].shape) == 96
    assert result.image_size == (height, width)
    # The fake's joint is the middle of the picture, whatever the picture's size.
    np.testing.assert_allclose(found.points, [[(width - 1) / 2, (height - 1) / 2, 0.5]], atol=1e-3)


def test_joints_are_never_outside_the_image():
    fitted = FittedEngine(OneJoint(at=(1.0, 1.0)), 32)
    found = fitted.decode(run(fitted, smooth_pixels(33, 500))[-1])
    assert isinstance(found, Keypoints)
    assert found.points[0, :2].tolist() == [499, 32]


def test_maps_cover_the_image_as_it_came():
    fitted = FittedEngine(TorchEngine(tiny_checkpoint()), 64)
    image = smooth_pixels(101, 203)
    result = run(fitted, image)[-1]
    assert result.logits.shape[1:] == result.confidence.shape == result.active.shape == (26, 51)
    assert 0 <= result.mean_confidence <= 1
    decoded = fitted.decode(result)
    assert isinstance(decoded, SegmentationMap)
    assert decoded.labels.shape == (101, 203)


def test_what_is_no_image_is_refused_before_it_is_fitted():
    with pytest.raises(InputError):
        FittedEngine(TorchEngine(tiny_checkpoint()), 64).begin(np.zeros((0, 4, 3), np.uint8))


def test_an_engine_of_a_card_with_a_side_fits_and_one_without_does_not():
    checkpoint = tiny_checkpoint("pose")
    checkpoint = replace(checkpoint, card=replace(checkpoint.card, input_side=64))
    engine = make_engine(checkpoint, "torch")
    assert isinstance(engine, FittedEngine)
    assert engine.name.startswith("torch")
    plain = TorchEngine(checkpoint)
    assert fit(plain, None) is plain


def test_a_prior_is_resized_with_its_image():
    fitted = FittedEngine(TorchEngine(tiny_checkpoint()), 64)
    logits = np.zeros((5, 32, 56), np.float32)
    logits[3] = 9
    active = np.zeros((32, 56), bool)
    active[:, 25:] = True
    begun = fitted.begin(smooth_pixels(101, 203), Prior.from_arrays(logits, active))
    for _ in range(4):
        labels = fitted.decode(begun.advance()).labels
        assert (labels[:, :90] == 3).all()
    assert (labels[:, 110:] != 3).any()


def test_a_prior_of_another_size_is_refused():
    fitted = FittedEngine(TorchEngine(tiny_checkpoint()), 64)
    prior = Prior.from_arrays(np.zeros((5, 16, 16), np.float32), np.zeros((16, 16), bool))
    with pytest.raises(InputError, match="padded size"):
        fitted.begin(smooth_pixels(101, 203), prior)
