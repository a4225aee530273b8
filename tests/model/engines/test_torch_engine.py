"""The torch engine is the network with numpy on both sides."""

import numpy as np
import pytest
import torch

from anytime_model.checkpoint.store import load_checkpoint
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, FinishedError, InputError
from anytime_model.results import Keypoints, SegmentationMap
from model.factories import random_pixels, save_tiny


def engine(tmp_path, task="segmentation"):
    return TorchEngine(load_checkpoint(tmp_path / save_tiny(tmp_path, task).file))


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_refused(tmp_path, device):
    checkpoint = load_checkpoint(tmp_path / save_tiny(tmp_path, "segmentation").file)
    with pytest.raises(ConfigError, match="cannot be used here"):
        TorchEngine(checkpoint, device)


def all_exits(engine, image):
    run = engine.begin(image)
    return [run.advance(criterion) for criterion in engine.card.criteria()]


def test_the_engine_makes_the_maps_of_the_network(tmp_path):
    e, image = engine(tmp_path), random_pixels()
    card = e.card
    scaled = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    normalised = (scaled - torch.tensor(card.mean).view(1, 3, 1, 1)) / torch.tensor(card.std).view(
        1, 3, 1, 1
    )
    states = e.network(normalised, card.criteria())
    for result, state in zip(all_exits(e, image), states, strict=True):
        np.testing.assert_allclose(result.logits, state.logits[0], atol=1e-4)
        assert np.array_equal(result.active, state.active[0, 0])
        assert result.exit == state.exit


def test_a_segmentation_is_decoded_at_the_size_of_the_image(tmp_path):
    e = engine(tmp_path)
    decoded = e.decode(all_exits(e, random_pixels(37, 50))[-1])
    assert isinstance(decoded, SegmentationMap)
    assert decoded.labels.shape == (37, 50)
    assert decoded.labels.dtype == np.uint8


def test_a_pose_is_decoded_as_one_point_a_joint(tmp_path):
    e = engine(tmp_path, "pose")
    decoded = e.decode(all_exits(e, random_pixels())[-1])
    assert isinstance(decoded, Keypoints)
    assert decoded.points.shape == (5, 3)


def test_confidence_speaks_of_the_image_and_not_of_its_padding(tmp_path):
    e = engine(tmp_path)
    result = all_exits(e, random_pixels(33, 33))[0]
    assert result.logits.shape[1:] == (16, 16)
    assert result.mean_confidence == pytest.approx(result.confidence[:9, :9].mean())


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_rgb_image_is_refused(tmp_path, image):
    with pytest.raises(InputError, match="expected uint8 of shape"):
        engine(tmp_path).begin(image)


def test_a_run_ends_after_its_last_exit(tmp_path):
    e = engine(tmp_path)
    run = e.begin(random_pixels())
    for _ in range(4):
        run.advance()
    assert run.exit == 4
    with pytest.raises(FinishedError):
        run.advance()


def test_runs_of_one_engine_do_not_disturb_each_other(tmp_path):
    e = engine(tmp_path)
    alone = all_exits(e, random_pixels(seed=1))
    one, other = e.begin(random_pixels(seed=1)), e.begin(random_pixels(seed=2))
    for criterion, expected in zip(e.card.criteria(), alone, strict=True):
        assert np.array_equal(one.advance(criterion).logits, expected.logits)
        other.advance(criterion)
