"""ImageNet weights: found by name and shape, folded for our normalisation, refused with a cure."""

import importlib.util

import pytest
import torch

from anytime_model.errors import CheckpointError, ConfigError
from anytime_model.networks.lite import imagenet
from anytime_model.networks.lite.anytime import LiteNetwork
from anytime_model.networks.lite.config import LiteConfig
from model.factories import tiny_lite, tiny_network


@pytest.fixture(scope="module")
def lite0():
    return LiteNetwork(LiteConfig("lite0", 3)).eval()


def published(network):
    """Random tensors under the names of the published file."""
    own = network.stages.state_dict()
    names = dict(imagenet._names(own))
    return {theirs: torch.rand_like(own[ours]) for ours, theirs in names.items()}


def test_every_tensor_of_the_encoder_has_one_of_the_files(lite0):
    names = dict(imagenet._names(lite0.stages.state_dict()))
    assert len(set(names.values())) == len(names) == 240
    assert names["0.stem.norm.weight"] == "_bn0.weight"
    assert names["1.blocks.0.expand.conv.weight"] == "_blocks.5._expand_conv.weight"
    assert names["3.blocks.4.project.norm.bias"] == "_blocks.15._bn2.bias"


def test_the_stem_sees_our_images_as_it_saw_theirs(lite0, tmp_path):
    torch.save(tensors := published(lite0), tmp_path / "weights.pth")
    imagenet.load_imagenet(lite0, tmp_path / "weights.pth")
    pixels = 255 * torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (imagenet._MEAN, imagenet._STD))
    stem = lite0.stages[0].stem
    ours = stem((pixels / 255 - mean) / std)[..., :-1, :-1]
    theirs = torch.nn.functional.conv2d(
        (pixels - 127) / 128, tensors["_conv_stem.weight"], stride=2
    )
    expected = torch.nn.functional.batch_norm(
        theirs,
        *(tensors[f"_bn0.{n}"] for n in ("running_mean", "running_var", "weight", "bias")),
        eps=1e-3,
    )
    torch.testing.assert_close(ours, expected.clamp(0, 6), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", [tiny_lite, tiny_network])
def test_another_network_is_refused(network, tmp_path):
    with pytest.raises(ConfigError, match=r"'lite0'.*'tiny'"):
        imagenet.load_imagenet(network(), tmp_path)


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(lite0, tmp_path):
    tensors = published(lite0)
    del tensors["_blocks.7._bn1.bias"]
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"_blocks\.7\._bn1\.bias.*again"):
        imagenet.load_imagenet(lite0, tmp_path / "weights.pth")


def test_a_file_that_is_no_archive_of_tensors_is_refused(lite0, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        imagenet.load_imagenet(lite0, tmp_path / "weights.pth")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"efficientnet-lite0.*anytime-dense\[train\]"):
        imagenet.weights_file()


@pytest.mark.skipif(
    importlib.util.find_spec(imagenet.PACKAGE) is None, reason="the package is not installed"
)
def test_the_packages_own_file_fits(lite0):
    imagenet.load_imagenet(lite0)
    assert lite0.stages[0].stem.conv.weight.std() > 0.1
