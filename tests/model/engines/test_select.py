"""The choice of an engine: what is asked for, and a fall-back that says why."""

import logging

import pytest

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
    for fastest in ("f32", "bf16"):
        monkeypatch.setattr(select, "fastest_dtype", lambda fastest=fastest: fastest)
        assert select.choose_dtype("auto") == fastest


def test_a_precision_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="'int8'; expected one of auto, f32, bf16"):
        select.choose_dtype("int8")
