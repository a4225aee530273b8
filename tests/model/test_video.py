"""What a stream remembers: unchanged pixels keep their maps, within bounds of age and error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model import video
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, FinishedError, InputError
from anytime_model.video import ReuseSettings, VideoMemory
from model.factories import lite_checkpoint, smooth_pixels, tiny_checkpoint, with_ladder

SIZE = (96, 160)
SCENE = smooth_pixels(*SIZE)


def memory_of(checkpoint=None, **settings):
    return VideoMemory(
        LadderEngine(TorchEngine(checkpoint or tiny_checkpoint())), ReuseSettings(**settings)
    )


def moved(image=SCENE, top=40, left=60, side=16, colour=255):
    """A scene into which a square has come."""
    changed = image.copy()
    changed[top : top + side, left : left + side] = colour
    return changed


def answer(memory, image, rungs=4, **options):
    """A frame's last map, and what it took from earlier ones."""
    run = memory.begin(image, **options)
    for _ in range(rungs):
        result = run.advance()
    return result, memory.finish(result)


def alone(memory, image, rungs=4):
    run = memory._engine.begin(image)
    return [run.advance() for _ in range(rungs)][-1]


def test_the_first_frame_is_computed_as_if_alone():
    memory = memory_of()
    result, reuse = answer(memory, SCENE)
    np.testing.assert_array_equal(result.logits, alone(memory, SCENE).logits)
    assert (reuse.share, reuse.oldest, reuse.difference) == (0, 0, None)


def test_a_frame_that_shows_the_same_costs_nothing_and_has_the_same_map():
    memory = memory_of(max_age=1000)
    first, _ = answer(memory, SCENE)
    second, reuse = answer(memory, SCENE)
    np.testing.assert_array_equal(second.logits, first.logits)
    assert (second.macs, reuse.share, reuse.oldest) == (0, 1, 1)


def test_around_a_change_the_map_is_computed_again_and_elsewhere_it_stays():
    memory = memory_of(max_age=1000)
    first, _ = answer(memory, SCENE)
    second, reuse = answer(memory, moved())
    changed = (first.logits != second.logits).any(axis=0)
    rows, columns = np.nonzero(changed)
    assert 0 < reuse.share < 1
    assert changed[10:14, 15:19].any()
    assert set(rows) <= set(range(10 - 6, 14 + 6))
    assert set(columns) <= set(range(15 - 6, 19 + 6))


def test_a_frame_that_has_changed_everywhere_is_computed_as_if_alone():
    memory = memory_of()
    answer(memory, SCENE)
    other = 255 - SCENE
    result, reuse = answer(memory, other)
    np.testing.assert_array_equal(result.logits, alone(memory, other).logits)
    assert reuse.share == 0


def test_a_drift_too_slow_to_be_seen_between_frames_is_seen():
    memory = memory_of(max_age=1000)
    answer(memory, SCENE // 2)
    shares = [answer(memory, SCENE // 2 + step)[1].share for step in range(1, 8)]
    assert shares[0] == 1
    assert 0 in shares


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 12), st.lists(st.booleans(), min_size=14, max_size=30))
def test_no_cell_is_older_than_the_bound(max_age, changes):
    memory = memory_of(max_age=max_age)
    for number, changes_now in enumerate(changes):
        image = moved(left=4 * (number % 20)) if changes_now else SCENE
        _, reuse = answer(memory, image, rungs=1)
        assert reuse.oldest <= max_age


def test_computing_again_is_spread_over_the_frames():
    memory = memory_of(max_age=4)
    answer(memory, SCENE)
    shares = [answer(memory, SCENE)[1].share for _ in range(12)]
    assert all(0.5 < share < 1 for share in shares[4:])


@pytest.mark.parametrize("monotone", [False, True])
def test_a_ladder_keeps_settled_cells_unchanged_over_many_frames(monotone):
    memory = memory_of(with_ladder(tiny_checkpoint(), 64, 160), max_age=1000)
    first, _ = answer(memory, SCENE, rungs=8, monotone=monotone)
    for number in range(4):
        last, reuse = answer(memory, moved(side=16 + 4 * (number % 2)), 8, monotone=monotone)
        assert 0 < reuse.share < 1
    np.testing.assert_array_equal(last.logits[:, :4, :4], first.logits[:, :4, :4])


def test_cells_of_a_lower_rung_are_soon_made_anew():
    memory = memory_of(with_ladder(tiny_checkpoint(), 64, 160), max_age=16)
    answer(memory, SCENE, rungs=2)
    for _ in range(4):
        answer(memory, SCENE, rungs=8)
    assert (memory._cells.rung == 8).all()


def test_a_frame_without_a_map_leaves_the_memory_as_it_was():
    memory = memory_of(max_age=1000)
    first, _ = answer(memory, SCENE)
    memory.begin(moved())
    assert memory.finish(None).share == 0
    assert not memory.wants_check
    again, reuse = answer(memory, SCENE)
    assert reuse.share == 1
    np.testing.assert_array_equal(again.logits, first.logits)


def test_another_size_begins_afresh():
    memory = memory_of()
    answer(memory, SCENE)
    small = SCENE[:64, :64]
    result, reuse = answer(memory, small)
    assert reuse.share == 0
    np.testing.assert_array_equal(result.logits, alone(memory, small).logits)


def test_memory_does_not_grow_with_the_frames():
    memory = memory_of(motion=True)
    answer(memory, SCENE)
    answer(memory, moved())
    held = memory.bytes
    for number in range(10):
        answer(memory, moved(left=8 * number))
    assert memory.bytes == held


def test_where_masks_save_nothing_a_frame_is_computed_whole_or_not_at_all():
    memory = memory_of(lite_checkpoint(), max_age=1000)
    answer(memory, SCENE)
    assert answer(memory, moved())[1].share == 0
    assert answer(memory, moved())[1].share == 1


def test_a_camera_that_turns_keeps_what_stays_in_view():
    wide = smooth_pixels(96, 320, seed=3) + np.random.default_rng(0).integers(
        0, 9, (96, 320, 3), np.uint8
    )
    views = [wide[:, 8 * k : 8 * k + 160] for k in range(4)]
    shares = {}
    for motion in (False, True):
        memory = memory_of(motion=motion, max_age=1000)
        shares[motion] = sum(answer(memory, np.ascontiguousarray(view))[1].share for view in views)
    assert shares[True] > shares[False] + 1


# The bound on the error.


def check(memory, image, rungs=4):
    run = memory.begin_check()
    for _ in range(rungs):
        result = run.advance()
    memory.finish_check(result)


def stream(memory, frames, rungs=4):
    """Answers frames and checks whenever that is wanted; the last reuse."""
    for image in frames:
        _, reuse = answer(memory, image, rungs)
        if memory.wants_check:
            check(memory, image, rungs)
    return reuse


def test_a_check_is_wanted_from_time_to_time_where_something_is_reused():
    memory = memory_of()
    wanted = []
    for number in range(40):
        answer(memory, moved(left=4 * (number % 30)))
        wanted.append(memory.wants_check)
        if memory.wants_check:
            check(memory, SCENE)
    assert 1 <= sum(wanted) <= 3


def test_a_check_measures_the_share_of_cells_that_differ():
    memory = memory_of(max_age=1000)
    reuse = stream(memory, [SCENE] * 20)
    assert (reuse.difference, reuse.checked) == (0.0, 1)


def test_too_large_a_difference_computes_the_next_frame_alone_and_reuses_less_then():
    def shares(max_difference):
        memory = memory_of(max_age=1000, max_difference=max_difference)
        frames = [moved(left=4 * (number % 30)) for number in range(120)]
        found = []
        for image in frames:
            found.append(answer(memory, image)[1].share)
            if memory.wants_check:
                check(memory, image)
        return found

    strict, loose = shares(0.0), shares(1.0)
    assert sum(strict) < sum(loose)
    assert strict.count(0.0) > loose.count(0.0)
    assert strict[-1] == 0.0  # no difference at all is only had alone


def test_a_difference_far_within_the_bound_reuses_more_again():
    memory = memory_of(max_age=1000, max_difference=1.0)
    before = answer(memory, SCENE) and answer(memory, moved())[1].share
    stream(memory, [SCENE] * 100)
    assert answer(memory, moved())[1].share > before


def test_a_pose_is_checked_by_its_joints():
    memory = memory_of(tiny_checkpoint(task="pose"), max_age=1000)
    reuse = stream(memory, [SCENE] * 20)
    assert (reuse.difference, reuse.checked) == (0.0, 1)


def test_calls_out_of_order_say_so():
    memory = memory_of()
    with pytest.raises(FinishedError, match="call begin first"):
        memory.finish(None)
    memory.begin(SCENE)
    with pytest.raises(FinishedError, match="call finish first"):
        memory.finish_check(alone(memory, SCENE))


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="uint8"):
        memory_of().begin(SCENE.astype(np.float32))
    with pytest.raises(ConfigError, match="max_age is 0"):
        ReuseSettings(max_age=0)
    with pytest.raises(ConfigError, match="max_difference is 2"):
        ReuseSettings(max_difference=2)


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -5), (-4, 6)])
def test_motion_is_found_in_cells(shift):
    scene = np.random.default_rng(1).random((60, 80, 3), np.float32)
    assert video._motion(scene, np.roll(scene, shift, (0, 1))) == shift
