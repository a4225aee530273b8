"""A stream keeps the answers of what has not changed, and is otherwise as frames computed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, InputError
from anytime_model.results import ExitResult
from anytime_model.video import ReuseSettings, VideoMemory
from anytime_model.video.blocks import MOST_NOISE
from anytime_model.video.bound import LEVELS, START
from model.comparing import native, native_isas
from model.factories import lite_checkpoint, smooth_pixels, tiny_checkpoint, with_ladder

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")
KINDS = [TorchEngine, pytest.param(native, marks=built)]
IMAGE = smooth_pixels(64, 192)
OTHER = smooth_pixels(64, 192, seed=1)
UNBOUNDED = 1.0


def engine_of(kind=TorchEngine, *sides, checkpoint=None):
    return LadderEngine(kind(with_ladder(checkpoint or tiny_checkpoint(), *sides)))


def memory_of(engine, **changes):
    return VideoMemory(engine, ReuseSettings(**{"max_difference": UNBOUNDED} | changes))


def climb(run, engine, upto=None):
    """The results of all rungs up to one."""
    criteria = engine.card.rung_criteria()[:upto]
    return [run.advance(criterion, rung=rung) for rung, criterion in enumerate(criteria, start=1)]


def show(memory, engine, image, upto=None):
    """The last result of a frame, and what it has reused."""
    result = climb(memory.begin(image), engine, upto)[-1]
    return result, memory.finish(result)


def check(memory, engine):
    memory.finish_check(climb(memory.begin_check(), engine)[-1])


def with_corner(image, value):
    """An image whose upper left corner is of one value."""
    changed = image.copy()
    changed[:16, :16] = value
    return changed


def assert_same(ours, theirs):
    for name in ("logits", "confidence", "active"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


# Nothing is reused.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", [(), (96, 192)])
@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_frames_that_reuse_nothing_are_those_computed_alone(kind, sides, task):
    engine = engine_of(kind, *sides, checkpoint=tiny_checkpoint(task))
    memory = memory_of(engine, max_age=1)
    for image in (IMAGE, IMAGE, OTHER):
        ours = climb(memory.begin(image), engine)
        reuse = memory.finish(ours[-1])
        for mine, alone in zip(ours, climb(engine.begin(image), engine), strict=True):
            assert_same(mine, alone)
            assert mine.macs == alone.macs
        assert (reuse.share, reuse.oldest) == (0, 0)


@pytest.mark.parametrize("sides", [(), (96, 192)])
def test_a_frame_that_has_changed_everywhere_is_computed_alone(sides):
    engine = engine_of(TorchEngine, *sides)
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    ours, reuse = show(memory, engine, 255 - IMAGE)
    assert reuse.share == 0
    assert_same(ours, climb(engine.begin(255 - IMAGE), engine)[-1])


def test_another_size_forgets_the_frames_before():
    engine = engine_of(TorchEngine, 96)
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    smaller = IMAGE[::2, ::2]
    ours, reuse = show(memory, engine, smaller)
    assert reuse.share == 0
    assert_same(ours, climb(engine.begin(smaller), engine)[-1])


# Something is.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", [(), (96, 192)])
def test_nothing_is_computed_of_an_unchanged_frame(kind, sides):
    engine = engine_of(kind, *sides)
    memory = memory_of(engine)
    first, _ = show(memory, engine, IMAGE)
    results = climb(memory.begin(IMAGE.copy()), engine)
    reuse = memory.finish(results[-1])
    assert sum(result.macs for result in results) == 0
    assert (reuse.share, reuse.oldest) == (1, 1)
    np.testing.assert_array_equal(results[-1].logits, first.logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", [(), (96, 192)])
def test_what_has_not_changed_keeps_its_logits_and_the_rest_is_new(kind, sides):
    engine = engine_of(kind, *sides)
    memory = memory_of(engine)
    first, _ = show(memory, engine, with_corner(IMAGE, 0))
    second, reuse = show(memory, engine, with_corner(IMAGE, 255))
    kept = (first.logits == second.logits).all(axis=0)[second.inside]
    assert 0.5 < reuse.share < 1
    assert kept.mean() == pytest.approx(reuse.share, abs=0.02)
    assert not kept[:4, :4].any()
    assert kept[:, 20:].all()


def test_cells_of_an_earlier_rung_are_made_again_once_there_is_time():
    engine = engine_of(TorchEngine)
    memory = memory_of(engine)
    early, _ = show(memory, engine, IMAGE, upto=1)
    again, reuse = show(memory, engine, IMAGE, upto=1)
    np.testing.assert_array_equal(again.logits, early.logits)
    assert reuse.share == 1
    show(memory, engine, OTHER)
    show(memory, engine, IMAGE, upto=1)
    deeper, reuse = show(memory, engine, IMAGE)
    assert reuse.share < 1
    assert deeper.exit == 4


def test_a_caller_may_use_an_image_again_for_the_next_frame():
    engine = engine_of()
    memory = memory_of(engine)
    image = IMAGE.copy()
    show(memory, engine, image)
    image[:] = 255 - image
    _, reuse = show(memory, engine, image)
    assert reuse.share == 0


def test_a_frame_without_a_map_leaves_the_memory_as_it_was():
    engine = engine_of()
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    memory.begin(OTHER)
    assert memory.finish(None).share == 0
    _, reuse = show(memory, engine, IMAGE)
    assert (reuse.share, reuse.oldest) == (1, 2)


def test_families_without_masks_keep_all_of_a_frame_or_nothing():
    engine = LadderEngine(TorchEngine(lite_checkpoint()))
    memory = memory_of(engine, max_age=3)
    shares = []
    for image in (IMAGE, IMAGE, IMAGE, IMAGE, with_corner(IMAGE, 255)):
        result, reuse = show(memory, engine, image)
        shares.append(reuse.share)
        if not reuse.share:
            assert_same(result, climb(engine.begin(image), engine)[-1])
    assert shares == [0, 1, 1, 0, 0]


def test_slow_drift_does_not_slip_through():
    engine = engine_of()
    memory = memory_of(engine, max_age=1000)
    computed = 0
    for step in range(40):
        computed += show(memory, engine, 100 + np.full_like(IMAGE, step))[1].share == 0
    assert computed >= 5


def test_a_camera_that_turns_is_followed():
    engine = engine_of()
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 256, (32, 96, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    shares = {}
    for motion in (False, True):
        memory = memory_of(engine, motion=motion)
        for x in range(0, 40, 5):
            _, reuse = show(memory, engine, wide[:, x : x + 256])
        shares[motion] = reuse.share
    assert shares[True] > 0.4
    assert shares[False] < 0.1


# Ages and bytes.


class StampEngine(TorchEngine):
    """Puts the number of the frame wherever it computes, and settles it."""

    stamp = 0

    def begin(self, image, prior=None):
        return StampRun(self, image, prior)


class StampRun:
    """One image of a stamp engine; it has one exit."""

    def __init__(self, engine, image, prior):
        self.engine, self.image, self.prior = engine, image, prior

    def advance(self, criterion=None, pause=None, *, exit_=None):
        height, width = (n // 4 for n in self.image.shape[:2])
        logits = np.full((5, height, width), self.engine.stamp, np.float32)
        if self.prior is not None:
            active = self.prior.active[0].numpy()
            logits = np.where(active, logits, self.prior.logits[0].numpy())
        settled = np.zeros((height, width), np.bool_)
        return ExitResult(1, self.image.shape[:2], logits, logits[0], settled, macs=1)


edits = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11), st.integers(0, 255)), max_size=3)


@settings(deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(edits, st.booleans()), min_size=1, max_size=24))
def test_no_cell_is_older_than_it_may_be_or_has_changed_unseen(max_age, frames):
    inner = StampEngine(tiny_checkpoint())
    memory = memory_of(LadderEngine(inner), max_age=max_age)
    image = IMAGE.copy()
    answered = np.zeros((16, 48, 3))
    for clock, (changes, is_stopped) in enumerate(frames):
        for row, column, value in changes:
            image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = value
        inner.stamp = clock
        run = memory.begin(image.copy())
        if is_stopped:
            memory.finish(None)
            continue
        result = run.advance()
        reuse = memory.finish(result)
        age = clock - result.logits[0]
        now = image.reshape(16, 4, 48, 4, 3).mean(axis=(1, 3))
        answered[age == 0] = now[age == 0]
        assert reuse.oldest == age.max() < max_age
        assert reuse.share == (age > 0).mean()
        assert np.abs(now - answered).max() <= LEVELS[START].tolerance + MOST_NOISE


def test_the_image_is_refreshed_in_turns_while_parts_of_it_move():
    inner = StampEngine(tiny_checkpoint())
    memory = memory_of(LadderEngine(inner), max_age=24)
    shares = []
    for clock in range(96):
        inner.stamp = clock
        moving = with_corner(IMAGE, clock % 2 * 200)
        shares.append(memory.finish(memory.begin(moving).advance()).share)
    later = shares[24:]
    assert min(later) > 0.3


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([IMAGE, OTHER, with_corner(IMAGE, 9), IMAGE[:32]]), min_size=2))
def test_the_memory_is_bounded_whatever_comes(frames):
    memory = memory_of(LadderEngine(StampEngine(tiny_checkpoint())))
    map_bytes = 16 * 48 * (5 + 3) * 4
    for image in frames:
        result = memory.begin(image.copy()).advance()
        assert memory.bytes <= 5 * IMAGE.nbytes + 3 * map_bytes
        memory.finish(result)
        if memory.wants_check:
            memory.begin_check()
        assert memory.bytes <= 4 * IMAGE.nbytes + 3 * map_bytes


# Checks.


def test_checks_find_nothing_where_answers_are_the_same():
    engine = engine_of()
    memory = memory_of(engine, max_difference=0.02, max_age=1000)
    checked = 0
    for _ in range(30):
        _, reuse = show(memory, engine, IMAGE)
        if memory.wants_check:
            check(memory, engine)
            checked += 1
    assert 2 <= checked <= 4
    assert reuse.difference == 0
    assert reuse.checked == checked


def test_a_check_that_was_given_up_is_wanted_again_at_the_next_frame():
    engine = engine_of()
    memory = memory_of(engine, max_age=1000)
    show(memory, engine, IMAGE)
    for _ in range(3):
        show(memory, engine, IMAGE)
        assert memory.wants_check
        memory.begin_check()
    show(memory, engine, IMAGE)
    check(memory, engine)
    show(memory, engine, IMAGE)
    assert not memory.wants_check


class NewAnswers(TorchEngine):
    """Gives every frame computed alone another answer than the one before."""

    def decode(self, result):
        found = super().decode(result)
        found.labels[:] = self.answers = getattr(self, "answers", 0) + 1
        return found


def test_a_stream_that_differs_too_much_reuses_less_until_it_reuses_nothing():
    engine = engine_of(NewAnswers)
    memory = memory_of(engine, max_difference=0.02)
    shares = []
    for number in range(60):
        _, reuse = show(memory, engine, with_corner(IMAGE, number % 2 * 200))
        shares.append(reuse.share)
        if memory.wants_check:
            check(memory, engine)
    assert reuse.difference == 1
    assert shares[1] > 0
    assert shares[-1] == 0


def test_a_check_may_give_way_to_the_next_frame():
    engine = engine_of()
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    show(memory, engine, IMAGE)
    memory.begin_check()
    _, reuse = show(memory, engine, IMAGE)
    assert reuse.checked == 0


def test_a_moved_joint_is_a_difference():
    engine = engine_of(checkpoint=tiny_checkpoint("pose"))
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    show(memory, engine, IMAGE)
    result = climb(engine.begin(OTHER), engine)[-1]
    memory.begin_check()
    memory.finish_check(result)
    _, reuse = show(memory, engine, IMAGE)
    assert 0 < reuse.difference <= 1


# Misuse.


def test_what_comes_out_of_order_is_refused():
    engine = engine_of()
    memory = memory_of(engine)
    with pytest.raises(ConfigError, match="no frame is under way"):
        memory.finish(None)
    with pytest.raises(ConfigError, match="no frame waits"):
        memory.begin_check()
    result, _ = show(memory, engine, IMAGE)
    with pytest.raises(ConfigError, match="no check is under way"):
        memory.finish_check(result)


def test_a_check_along_another_path_is_refused():
    engine = engine_of()
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    show(memory, engine, IMAGE)
    run = memory.begin_check()
    with pytest.raises(ConfigError, match="expected 4"):
        memory.finish_check(climb(run, engine, upto=2)[-1])


@pytest.mark.parametrize("changes", [{"max_age": 0}, {"max_difference": 1.5}])
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        ReuseSettings(**changes)


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="expected uint8"):
        memory_of(engine_of()).begin(np.zeros((4, 4), np.uint8))
