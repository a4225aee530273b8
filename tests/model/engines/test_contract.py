"""What every engine promises its caller: errors instead of crashes, pauses, and an end."""

import importlib.util

import numpy as np
import pytest

from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import FinishedError, InputError
from model.comparing import assert_agrees, native, native_isas, run
from model.factories import random_pixels, tiny_checkpoint

ENGINES = {
    "torch": TorchEngine,
    **({"native": native} if native_isas() else {}),
    **({"openvino": OpenVinoEngine} if importlib.util.find_spec("openvino") else {}),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(k, marks=pytest.mark.slow) if k == "openvino" else k for k in ENGINES],
)
def engine(request):
    return ENGINES[request.param](tiny_checkpoint())


class StopError(Exception):
    """What a caller raises to stop."""


def stop():
    raise StopError


def test_a_run_makes_four_exits_and_no_fifth(engine):
    begun = engine.begin(random_pixels(40, 70))
    for exit_ in range(1, 5):
        result = begun.advance()
        assert result.exit == begun.exit == exit_
        assert result.image_size == (40, 70)
        assert result.logits.shape == (5, 16, 24)
        assert result.logits.dtype == np.float32
        assert result.macs > 0
    with pytest.raises(FinishedError):
        begun.advance()


def test_results_stay_as_they_were_when_the_run_goes_on(engine):
    begun = engine.begin(random_pixels(40, 70))
    first = begun.advance()
    before = first.logits.copy(), first.confidence.copy(), first.active.copy()
    begun.advance()
    for then, now in zip(before, (first.logits, first.confidence, first.active), strict=True):
        np.testing.assert_array_equal(then, now)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.full((8, 8, 3), np.nan, np.float32),
        np.full((8, 8, 3), np.inf, np.float64),
        np.zeros((8, 8, 3), np.int8),
    ],
    ids=lambda a: f"{a.shape} {a.dtype}",
)
def test_what_is_no_image_is_refused(engine, image):
    with pytest.raises(InputError):
        engine.begin(image)


def test_an_image_may_be_a_view_that_cannot_be_written(engine):
    image = random_pixels(64, 96)
    view = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    view.flags.writeable = False
    assert_agrees(run(engine, view), run(engine, image), tolerance=1e-6)


def test_a_pause_that_raises_ends_the_run_and_not_the_engine(engine, monkeypatch):
    monkeypatch.setattr("anytime_model.engines.native.engine.SLICE_US", 1)
    expected = run(engine, random_pixels(64, 96))
    begun = engine.begin(random_pixels(64, 96, seed=1))
    with pytest.raises(StopError):
        begun.advance(pause=stop)
    assert_agrees(run(engine, random_pixels(64, 96)), expected, tolerance=1e-6)


def test_it_says_what_computes(engine):
    kind = engine.name.split("-")[0]
    assert kind in {"torch", "native", "openvino"}
    assert engine.sparse == (kind == "native")


def test_a_normalised_image_gives_what_its_bytes_give(engine):
    image = random_pixels(40, 70)
    mean, std = (
        np.array(v, np.float32)[:, None, None] for v in (engine.card.mean, engine.card.std)
    )
    begun = engine.begin_normalised((image.transpose(2, 0, 1) / np.float32(255) - mean) / std)
    assert_agrees([begun.advance() for _ in range(4)], run(engine, image))


def test_all_engines_agree_with_the_definition_where_nothing_is_masked(engine):
    image = random_pixels(50, 80)
    assert_agrees(run(engine, image), run(TorchEngine(tiny_checkpoint()), image))


@pytest.mark.slow
def test_openvino_agrees_on_poses():
    pytest.importorskip("openvino")
    checkpoint, image = tiny_checkpoint("pose"), random_pixels(50, 80)
    assert_agrees(run(OpenVinoEngine(checkpoint), image), run(TorchEngine(checkpoint), image))
