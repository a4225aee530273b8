"""Parts of a network that lose too much in int8 stay in floats."""

import numpy as np
import pytest
import torch

from anytime_model.engines.native.sensitivity import choose_floats
from anytime_model.errors import ConfigError
from anytime_model.kernels.library import KernelError
from model.comparing import native_isas
from model.factories import lite_checkpoint, tiny_checkpoint

built = pytest.mark.skipif(not native_isas("int8"), reason="the native kernels are not built")


def images(count=2):
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.normal(0, 1, (3, 64, 96)).astype(np.float32))] * count


@built
@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_nothing_stays_in_floats_where_any_change_is_allowed(task):
    trials = []
    chosen = choose_floats(tiny_checkpoint(task), images(), 1.0, tick=trials.append)
    assert trials == [chosen]
    assert chosen.int8.floats == ()
    assert len(chosen.changed) == 4
    assert all(0 <= share <= 1 for share in chosen.changed)
    assert chosen.above(1.0) == 0


@built
def test_parts_stay_in_floats_until_less_is_changed():
    trials = []
    first = choose_floats(tiny_checkpoint(), images(), 1.0)
    bound = 0.9 * first.changed[-1]
    chosen = choose_floats(tiny_checkpoint(), images(), bound, tick=trials.append)
    assert chosen.int8.floats
    assert chosen.above(bound) < first.above(bound)
    assert all(len(trial.changed) == 4 for trial in trials)
    assert trials[0].int8.floats == ()


@built
def test_what_cannot_run_in_int8_is_refused():
    with pytest.raises(KernelError, match="depthwise"):
        choose_floats(lite_checkpoint(), images(), 0.5)


@built
def test_there_must_be_images():
    with pytest.raises(ConfigError, match="no images"):
        choose_floats(tiny_checkpoint(), [], 0.5)
