"""The family lite in the engines: torch and OpenVINO agree, native refuses, auto goes on."""

import pytest
import torch

from anytime_model.confidence import MaximumProbability
from anytime_model.engines import select
from anytime_model.engines.native.lowering import FamilyError, lower
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.networks.base import Prior
from model.comparing import assert_agrees, run
from model.factories import lite_checkpoint, smooth_pixels


def test_the_native_engine_refuses_with_a_cure():
    with pytest.raises(FamilyError, match=r"'lite'.*openvino or torch"):
        lower(lite_checkpoint().network)


def test_auto_takes_openvino_where_it_is_installed_else_torch(monkeypatch, caplog):
    installed = {"openvino": object()}
    monkeypatch.setattr(select, "find_spec", installed.get)
    monkeypatch.setattr(select, "OpenVinoEngine", lambda checkpoint, *, dtype: "openvino")
    monkeypatch.setattr(select, "NativeEngine", refuse)
    assert select.make_network_engine(lite_checkpoint(), "auto") == "openvino"
    installed.clear()
    assert isinstance(select.make_network_engine(lite_checkpoint(), "auto"), TorchEngine)
    assert not caplog.records


def refuse(checkpoint, **_):
    """What the native engine does, built or not."""
    lower(checkpoint.network)


@pytest.mark.slow
def test_openvino_agrees_with_torch_with_masks_and_a_prior():
    pytest.importorskip("openvino")
    checkpoint = lite_checkpoint()
    image, criteria = smooth_pixels(60, 90), [MaximumProbability(0.6)] * 3
    prior = Prior(torch.randn(1, 5, 16, 24), torch.rand(1, 1, 16, 24) < 0.7)
    openvino, plain = OpenVinoEngine(checkpoint), TorchEngine(checkpoint)
    for prior_ in (None, prior):
        expected = run(plain, image, criteria, prior=prior_)
        assert 0 < expected[0].active_share < 1
        assert_agrees(run(openvino, image, criteria, prior=prior_), expected, tolerance=1e-4)
