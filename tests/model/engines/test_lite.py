"""The family lite in the engines: all agree; auto goes on where native has no program."""

from types import SimpleNamespace

import pytest
import torch

from anytime_model.confidence import HeatmapMaximum, MaximumProbability
from anytime_model.engines import select
from anytime_model.engines.native.lowering import lower
from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import FamilyError
from anytime_model.networks.base import Prior
from model.comparing import assert_agrees, native, native_isas, run, sampled
from model.factories import lite_checkpoint, smooth_pixels

ISAS = native_isas()
built = pytest.mark.skipif(not ISAS, reason="the native kernels are not built")
MASKS = {"dense": (None, None, None), "sure": [MaximumProbability(0.6)] * 3}


@built
@pytest.mark.parametrize(("isa", "task", "masks"), sampled(ISAS, ["segmentation", "pose"], MASKS))
def test_the_native_engine_agrees_with_torch(isa, task, masks):
    checkpoint, image = lite_checkpoint(task), smooth_pixels(60, 90)
    criteria = MASKS[masks] if task == "segmentation" else [HeatmapMaximum(0.02)] * 3
    expected = run(TorchEngine(checkpoint), image, criteria)
    assert_agrees(run(native(checkpoint, isa), image, criteria), expected)


@built
@pytest.mark.parametrize("size", [(1, 1), (33, 64), (200, 470)], ids=str)
def test_the_native_engine_agrees_at_any_size_with_a_prior(size):
    checkpoint, image = lite_checkpoint(), smooth_pixels(*size)
    cells = [-(-n // 32) * 8 for n in size]
    generator = torch.Generator().manual_seed(0)
    prior = Prior(
        torch.randn(1, 5, *cells, generator=generator),
        torch.rand(1, 1, *cells, generator=generator) < 0.7,
    )
    criteria = MASKS["sure"]
    expected = run(TorchEngine(checkpoint), image, criteria, prior=prior)
    assert_agrees(run(native(checkpoint), image, criteria, prior=prior), expected)


@built
def test_the_native_engine_computes_no_more_than_torch_and_less_where_maps_are_settled():
    checkpoint, image = lite_checkpoint(), smooth_pixels(60, 90)
    dense, plain = run(native(checkpoint), image), run(TorchEngine(checkpoint), image)
    assert [result.macs for result in dense] == [result.macs for result in plain]
    masked = run(native(checkpoint), image, MASKS["sure"])
    assert masked[0].macs == dense[0].macs
    assert sum(result.macs for result in masked) < sum(result.macs for result in dense)


@pytest.mark.parametrize("isa", native_isas("bf16"))
def test_the_native_engine_in_bfloat16_is_close(isa):
    checkpoint, image = lite_checkpoint(), smooth_pixels(60, 90)
    found = run(native(checkpoint, isa), image)
    assert_agrees(found, run(TorchEngine(checkpoint), image), tolerance=0.05)


def test_the_native_engine_refuses_other_families_with_a_cure():
    with pytest.raises(FamilyError, match=r"'other'.*openvino or torch"):
        lower(SimpleNamespace(config=SimpleNamespace(family="other")))


def test_auto_takes_openvino_for_another_family_where_it_is_installed_else_torch(
    monkeypatch, caplog
):
    installed = {"openvino": object()}
    monkeypatch.setattr(select, "find_spec", installed.get)
    monkeypatch.setattr(select, "OpenVinoEngine", lambda checkpoint, *, dtype: "openvino")
    monkeypatch.setattr(select, "NativeEngine", refuse)
    assert select.make_network_engine(lite_checkpoint(), "auto") == "openvino"
    installed.clear()
    assert isinstance(select.make_network_engine(lite_checkpoint(), "auto"), TorchEngine)
    assert not caplog.records


def refuse(checkpoint, **_):
    """What the native engine does with a family that it has no program for, built or not."""
    raise FamilyError(f"no program for {checkpoint.card.name}")


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
