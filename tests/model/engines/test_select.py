"""The choice of an engine: what is asked for, and a fall-back that says why."""

import logging
from dataclasses import replace

import pytest

from anytime_model.checkpoint.card import Quality, Quantisation
from anytime_model.engines import select
from anytime_model.engines.native.engine import NativeEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError
from anytime_model.kernels import library
from anytime_model.kernels.library import NotBuiltError
from model.comparing import native_isas
from model.factories import tiny_checkpoint


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """A cache without a library, and a process that has not loaded one."""
    monkeypatch.setenv("ANYTIME_KERNEL_CACHE", str(tmp_path))
    library.load.cache_clear()
    yield
    library.load.cache_clear()


def test_auto_falls_back_to_torch_and_logs_why(nothing_built, caplog):
    engine = select.make_network_engine(tiny_checkpoint(), "auto")
    assert isinstance(engine, TorchEngine)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "not built" in record.getMessage()


def test_an_engine_that_was_asked_for_by_name_is_never_replaced(nothing_built):
    with pytest.raises(NotBuiltError, match=r"anytime_model\.kernels\.build"):
        select.make_engine(tiny_checkpoint(), "native")


@pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")
def test_auto_takes_the_native_engine_without_a_word(monkeypatch, caplog):
    monkeypatch.delenv(select.VARIABLE, raising=False)
    assert isinstance(select.make_network_engine(tiny_checkpoint()), NativeEngine)
    assert not caplog.records


def test_the_environment_chooses_the_engine(monkeypatch):
    monkeypatch.setenv(select.VARIABLE, "torch")
    assert isinstance(select.make_network_engine(tiny_checkpoint()), TorchEngine)
    monkeypatch.setenv(select.VARIABLE, "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        select.make_engine(tiny_checkpoint())


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_precision_that_is_asked_for_is_taken(precision):
    assert select.choose_dtype(precision) == precision
    assert select.make_engine(tiny_checkpoint(), "torch", precision=precision).dtype == precision


def test_auto_takes_the_precision_that_the_cpu_multiplies_faster(monkeypatch):
    for order in (("f32", "bf16"), ("bf16", "f32")):
        monkeypatch.setattr(select, "dtypes_by_speed", lambda order=order: order)
        assert select.choose_dtype("auto") == order[0]


@pytest.mark.parametrize(
    ("in_int8", "dataset", "expected"),
    [
        ((0.50, 0.59), "street val", "int8"),  # one point better, half a point worse
        ((0.49, 0.589), "street val", "f32"),
        ((0.50, 0.60), "street test", "f32"),  # not the same images
        (None, "street val", "f32"),
    ],
)
def test_auto_takes_int8_only_where_it_is_known_to_lose_at_most_half_a_point(
    monkeypatch, in_int8, dataset, expected
):
    monkeypatch.setattr(select, "dtypes_by_speed", lambda: ("int8", "f32", "bf16"))
    quality = None if in_int8 is None else Quality("mIoU", in_int8, dataset, precision="int8")
    card = replace(
        tiny_checkpoint().card,
        quality=Quality("mIoU", (0.49, 0.595), "street val"),
        int8=Quantisation((), "mse", 3, "0" * 64, quality),
    )
    assert select.choose_dtype("auto", card) == expected


def test_int8_needs_the_native_engine_on_the_cpu():
    for kind in ("torch", "openvino"):
        with pytest.raises(ConfigError, match="expected the native engine"):
            select.make_network_engine(tiny_checkpoint(), kind, precision="int8")


def test_a_precision_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="'int4'; expected one of auto, f32, bf16, int8"):
        select.choose_dtype("int4")
