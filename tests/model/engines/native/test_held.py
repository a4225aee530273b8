"""Features held from frame to frame: what torch says, the same as alone where all is fresh."""

import gc

import numpy as np
import pytest
import torch

from anytime_model.engines.native.engine import program_of
from anytime_model.engines.native.held import held_program
from anytime_model.engines.native.interpretation import HeldMaps, Interpretation
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.errors import InputError
from anytime_model.kernels.handles import CacheHandle, RunHandle
from anytime_model.kernels.library import KernelError, Storage
from anytime_model.networks.base import Prior
from model.comparing import native, native_isas
from model.engines.native.test_int8 import normalised, with_ranges
from model.factories import lite_checkpoint, smooth_pixels, tiny_checkpoint
from model.fakes import Painted

ISAS = {dtype: native_isas(dtype) for dtype in ("f32", "bf16", "int8")}
ALL_ISAS = [isa for isas in ISAS.values() for isa in isas]
CELLS = (16, 24)
pytestmark = pytest.mark.skipif(not ISAS["f32"], reason="the native kernels are not built")


def image_of(number):
    """A frame in which every pixel has changed, so that what is held is of another image."""
    return smooth_pixels(64, 96, seed=number)


def blobs(seed, share):
    """A mask of a few rectangles."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(CELLS, np.bool_)
    while mask.mean() < share:
        y, x = rng.integers(0, CELLS[0]), rng.integers(0, CELLS[1])
        mask[y : y + rng.integers(1, 7), x : x + rng.integers(1, 7)] = True
    return mask


class Video:
    """Frames through an engine that holds features, and through torch's meaning of it."""

    def __init__(self, checkpoint, isa):
        self.engine = native(checkpoint, isa)
        self.cache = self.engine.new_cache((64, 96))
        self.program = held_program(program_of(checkpoint, self.engine.dtype))
        self.maps = HeldMaps()
        self.outputs = checkpoint.card.config.outputs

    def begin(self, image, fresh):
        """The engine's run: where nothing is fresh, the map is settled."""
        prior = None
        if fresh is not None:
            logits = np.zeros((self.outputs, *CELLS), np.float32)
            prior = Prior.from_arrays(logits, fresh)
        return self.engine.begin_held(image, prior, self.cache, fresh)

    def show(self, number, fresh, exits=4):
        """Both's maps of a frame, and where they count."""
        image = image_of(number)
        ours = self.begin(image, fresh)
        of_torch = None if fresh is None else torch.from_numpy(fresh)
        theirs = Interpretation(
            self.program,
            normalised(self.engine.card, image),
            held=self.maps,
            fresh=of_torch,
        )
        active = np.ones(CELLS, np.bool_) if fresh is None else fresh
        mask = None
        for exit_ in range(1, exits + 1):
            unsure = blobs(10 * number + exit_, 0.6)
            result = ours.advance(Painted(unsure))
            expected = theirs.advance(None if mask is None else torch.from_numpy(mask)).numpy()
            yield result.logits, expected, active
            active = active & unsure
            mask = active
            np.testing.assert_array_equal(result.active, active)


@pytest.mark.parametrize("isa", ISAS["f32"])
@pytest.mark.parametrize(("task", "exits"), [("segmentation", "redesigned"), ("pose", "original")])
def test_every_frame_is_what_torch_says(isa, task, exits):
    video = Video(tiny_checkpoint(task, exits=exits), isa)
    for number in range(6):
        fresh = None if number == 0 else blobs(number, 0.3)
        for ours, theirs, active in video.show(number, fresh):
            error = np.abs(ours - theirs)[:, active]
            assert error.max(initial=0) <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("isa", ISAS["int8"])
def test_in_bytes_every_frame_is_what_torch_says(isa):
    video = Video(with_ranges(tiny_checkpoint()), isa)
    for number in range(4):
        fresh = None if number == 0 else blobs(number, 0.4)
        for ours, theirs, active in video.show(number, fresh):
            error, largest = np.abs(ours - theirs)[:, active], np.abs(theirs).max()
            assert error.max(initial=0) <= 0.04 * largest
            assert (error > 1e-5 * largest).mean() < 0.05


def test_stages_that_frames_did_not_come_to_are_made_up_for():
    video = Video(tiny_checkpoint(), None)
    for number, exits in enumerate((4, 1, 2, 4, 1, 3, 4)):
        fresh = None if number == 0 else blobs(number, 0.3)
        for ours, theirs, active in video.show(number, fresh, exits):
            error = np.abs(ours - theirs)[:, active]
            assert error.max(initial=0) <= 1e-4 * np.abs(theirs).max()


class StopError(Exception):
    pass


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_a_stage_that_was_stopped_is_made_again(calls, monkeypatch):
    monkeypatch.setattr("anytime_model.engines.native.engine.SLICE_US", 1)
    video = Video(tiny_checkpoint(), None)
    list(video.show(0, None))
    left = calls

    def pause():
        nonlocal left
        left -= 1
        if not left:
            raise StopError

    fresh = blobs(7, 0.3)
    run = video.begin(image_of(9), fresh)
    with pytest.raises(StopError):
        run.advance(None, pause)
    # Torch never sees that frame; what it had begun is fresh in the next.
    for ours, theirs, active in video.show(1, fresh | blobs(1, 0.2)):
        error = np.abs(ours - theirs)[:, active]
        assert error.max(initial=0) <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_a_frame_that_is_fresh_everywhere_is_that_computed_alone_whatever_was_before(isa):
    checkpoint = with_ranges(tiny_checkpoint())
    video = Video(checkpoint, isa)
    criteria = [Painted(blobs(number, 0.7)) for number in range(4)]
    alone = [run.advance(c) for run in [video.engine.begin(image_of(3))] for c in criteria]
    for number in range(3):
        run = video.begin(image_of(number), None if number == 0 else blobs(number, 0.3))
        for criterion in criteria:
            run.advance(criterion)
    run = video.begin(image_of(3), None)
    for criterion, expected in zip(criteria, alone, strict=True):
        found = run.advance(criterion)
        np.testing.assert_array_equal(found.logits, expected.logits)
        np.testing.assert_array_equal(found.active, expected.active)


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_making_an_unchanged_frame_anew_changes_no_bit(isa):
    video = Video(with_ranges(tiny_checkpoint()), isa)
    first = [run.advance() for run in [video.begin(image_of(0), None)] for _ in range(4)]
    for number in range(3):
        fresh = blobs(number, 0.3)
        run = video.begin(image_of(0), fresh)
        for expected in first:
            found = run.advance()
            np.testing.assert_array_equal(found.logits[:, fresh], expected.logits[:, fresh])


def test_nothing_is_computed_where_nothing_is_fresh():
    video = Video(tiny_checkpoint(), None)
    list(video.show(0, None))
    run = video.begin(image_of(1), np.zeros(CELLS, np.bool_))
    assert [run.advance().macs for _ in range(4)] == [0] * 4


def test_a_cache_is_for_one_run_at_a_time_and_one_size():
    video = Video(tiny_checkpoint(), None)
    first = video.begin(image_of(0), None)
    first.advance()
    second = video.begin(image_of(1), None)
    with pytest.raises(KernelError, match="another run has taken it"):
        first.advance()
    second.advance()
    with pytest.raises(KernelError, match="another plan"):
        video.engine.begin_held(smooth_pixels(32, 64), None, video.cache, None)


def test_a_run_of_a_program_that_holds_features_needs_a_cache():
    engine = native(tiny_checkpoint())
    plan = engine._video_plans.make((64, 96))
    run = plan.take_run()
    run.start_floats(np.zeros((3, 64, 96), np.float32))
    with pytest.raises(KernelError, match="held in no cache"):
        run.advance(0)
    ordinary = engine._plans.make((64, 96))
    with pytest.raises(KernelError, match="holds no features"):
        ordinary.new_cache()


def test_a_program_that_holds_features_has_neither_windows_nor_maps_used_twice():
    program = program_of(tiny_checkpoint(), "f32")
    held = held_program(program)
    storages = {buffer.storage for buffer in held.buffers[2:]}
    assert storages == {Storage.HELD, Storage.LOCAL, Storage.SCRATCH}
    assert [b.slot for b in held.buffers] == list(range(len(held.buffers)))
    assert not any(operation.tiled for operation in held.operations)
    assert [o.conv for o in held.operations] == [o.conv for o in program.operations]


def test_networks_whose_exits_may_be_left_out_hold_nothing():
    assert held_program(program_of(lite_checkpoint(), "f32")) is None
    assert native(lite_checkpoint()).new_cache((64, 96)) is None


# Memory


def test_features_count_until_nobody_holds_them():
    budget = MemoryBudget()
    engine = native(tiny_checkpoint(), memory=budget)
    engine.prepare((64, 96))
    cache = engine.new_cache((64, 96))
    before = budget.used_bytes - cache.bytes
    assert budget.held_bytes == cache.bytes > 0
    assert budget.used_bytes == before + cache.bytes
    del cache
    gc.collect()
    assert (budget.held_bytes, budget.used_bytes) == (0, before)


def test_features_beyond_half_of_the_budget_are_refused():
    one = native(tiny_checkpoint()).new_cache((64, 96)).bytes
    engine = native(tiny_checkpoint(), memory=MemoryBudget(5 * one))
    held = [engine.new_cache((64, 96)) for _ in range(4)]
    assert [cache is not None for cache in held] == [True, True, False, False]


def test_features_give_way_to_an_image():
    size = (320, 320)
    budget = MemoryBudget()
    engine = native(tiny_checkpoint(), memory=budget)
    engine.prepare(size)
    needed = budget.used_bytes
    budget = MemoryBudget(needed + 4096)
    engine = native(tiny_checkpoint(), memory=budget)
    caches = []
    while (cache := engine.new_cache((64, 96))) is not None:
        caches.append(cache)
    assert caches
    run = engine.begin(smooth_pixels(*size))
    assert all(cache.lost and cache.bytes == 0 for cache in caches)
    assert budget.used_bytes <= budget.limit_bytes
    assert len([run.advance() for _ in range(4)]) == 4


def test_a_run_goes_on_in_features_that_were_taken_back_meanwhile():
    video = Video(tiny_checkpoint(), None)
    expected = [run.advance() for run in [video.engine.begin(image_of(0))] for _ in range(4)]
    run = video.begin(image_of(0), None)
    run.advance()
    video.cache.take_back()
    found = run.advance()
    np.testing.assert_array_equal(found.logits, expected[1].logits)


def test_no_image_is_begun_where_the_budget_has_no_room_at_all():
    engine = native(tiny_checkpoint(), memory=MemoryBudget(1 << 20))
    assert engine.new_cache((640, 640)) is None
    with pytest.raises(InputError):
        engine.begin(smooth_pixels(640, 640))


def test_handles_may_be_freed_in_any_order():
    engine = native(tiny_checkpoint())
    plan = engine._video_plans.make((64, 96))
    cache, run = plan.new_cache(), plan.take_run()
    assert isinstance(cache, CacheHandle)
    assert isinstance(run, RunHandle)
    run.start_floats(np.zeros((3, 64, 96), np.float32))
    run.use_cache(cache)
    del plan, cache
    gc.collect()
    assert not run.advance(0)
