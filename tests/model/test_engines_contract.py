"""What every engine promises its caller: errors instead of crashes, pauses, and an end."""

import importlib.util

import numpy as np
import pytest

from anytime_model.engines.openvino_engine import OpenVinoEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import FinishedError, ImageError
from model.engine_fakes import assert_agrees, native, native_isas, run, tiny_checkpoint
from model.model_fakes import random_pixels

ENGINES = {
    "torch": TorchEngine,
    **({"native": native} if native_isas() else {}),
    **({"openvino": OpenVinoEngine} if importlib.util.find_spec("openvino") else {}),
}


@pytest.fixture(scope="module", params=ENGINES)
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
    with pytest.raises(ImageError):
        engine.begin(image)


def test_an_image_may_be_a_view_that_cannot_be_written(engine):
    image = random_pixels(64, 96)
    view = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    view.flags.writeable = False
    assert_agrees(run(engine, view), run(engine, image), tolerance=1e-6)


def test_a_pause_that_raises_ends_the_run_and_not_the_engine(engine):
    image = random_pixels(256, 512)
    expected = run(engine, random_pixels(64, 96))
    begun = engine.begin(image)
    with pytest.raises(StopError):
        begun.advance(pause=stop)
    assert_agrees(run(engine, random_pixels(64, 96)), expected, tolerance=1e-6)


def test_it_says_what_computes(engine):
    kind = engine.name.split("-")[0]
    assert kind in {"torch", "native", "openvino"}
    assert engine.sparse == (kind == "native")


def test_openvino_agrees_with_the_definition_where_nothing_is_masked():
    if "openvino" not in ENGINES:
        pytest.skip("openvino is not installed")
    for task in ("segmentation", "pose"):
        checkpoint = tiny_checkpoint(task)
        image = random_pixels(50, 80)
        assert_agrees(run(OpenVinoEngine(checkpoint), image), run(TorchEngine(checkpoint), image))
