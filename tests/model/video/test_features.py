"""A stream's features are held from frame to frame, at each size, as long as there is room."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from anytime_model.engines.features import VideoFeatures
from anytime_model.engines.ladder import LadderEngine
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.video import ReuseSettings, VideoMemory
from model.comparing import native, native_isas
from model.factories import smooth_pixels, tiny_card, tiny_checkpoint, with_ladder
from model.video.test_memory import assert_same, climb, show, with_corner

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")
IMAGE = smooth_pixels(64, 192)


@dataclass
class Cache:
    """Memory for features, as an engine gives it."""

    bytes: int = 100
    lost: bool = False


@dataclass
class Engine:
    """Gives caches while it has some."""

    room: int = 10
    card: object = field(default_factory=tiny_card)

    def new_cache(self, size):
        self.room -= 1
        return Cache() if self.room >= 0 else None


def mask(size, rows):
    """Of an image's map, the first rows."""
    found = np.zeros((size[0] // 4, size[1] // 4), np.bool_)
    found[:rows] = True
    return found


SIZE, LARGER = (32, 64), (64, 128)


def test_what_is_fresh_is_collected_over_frames_that_did_not_come_to_a_size():
    features = VideoFeatures(Engine())
    features.frame(None)
    for index, size in enumerate((SIZE, LARGER)):
        assert features.take(index, size)[1] is None
        features.fill(index)
    features.frame(lambda size: mask(size, 1))
    assert features.take(0, SIZE)[1].sum() == 16
    features.frame(lambda size: mask(size, 2))
    assert features.take(0, SIZE)[1].sum() == 32
    features.frame(lambda size: mask(size, 0))
    assert not features.take(0, SIZE)[1].any()
    np.testing.assert_array_equal(features.take(1, LARGER)[1], mask(LARGER, 2))
    assert features.bytes == 200


def test_until_a_frame_has_filled_them_features_are_fresh_everywhere():
    features = VideoFeatures(Engine())
    for _ in range(2):
        features.frame(lambda size: mask(size, 1))
        assert features.take(0, SIZE)[1] is None
    features.fill(0)
    features.frame(lambda size: mask(size, 1))
    assert features.take(0, SIZE)[1] is not None
    features.forget()
    features.frame(lambda size: mask(size, 1))
    assert features.take(0, SIZE)[1] is None


def test_features_that_were_taken_back_are_made_anew_and_refused_where_there_is_no_room():
    features = VideoFeatures(Engine(room=2))
    cache, _ = features.take(0, SIZE)
    features.fill(0)
    cache.lost = True
    features.frame(lambda size: mask(size, 1))
    again, fresh = features.take(0, SIZE)
    assert again is not cache
    assert fresh is None
    again.lost = True
    assert not features.refused
    assert features.take(0, SIZE) is None
    assert features.refused


def memory_of(engine):
    return VideoMemory(engine, ReuseSettings(max_difference=1.0))


def engine_of(*sides, **options):
    return LadderEngine(native(with_ladder(tiny_checkpoint(), *sides), **options))


@built
def test_the_first_exit_too_is_computed_only_where_the_frame_is_new():
    engine = engine_of()
    memory = memory_of(engine)
    first = climb(memory.begin(with_corner(IMAGE, 0)), engine)
    memory.finish(first[-1])
    second = climb(memory.begin(with_corner(IMAGE, 255)), engine)
    memory.finish(second[-1])
    assert 0 < second[0].macs < 0.4 * first[0].macs
    assert memory.feature_bytes > 0


@built
@pytest.mark.parametrize("sides", [(), (96, 192)])
def test_a_frame_that_is_new_everywhere_is_computed_alone_after_frames_that_were_not(sides):
    engine = engine_of(*sides)
    memory = memory_of(engine)
    for value in (0, 255, 100):
        show(memory, engine, with_corner(IMAGE, value))
    ours, reuse = show(memory, engine, 255 - IMAGE)
    assert reuse.share == 0
    assert_same(ours, climb(engine.begin(255 - IMAGE), engine)[-1])


@built
def test_while_frames_are_new_everywhere_no_features_are_made():
    engine = engine_of()
    memory = memory_of(engine)
    images = [smooth_pixels(64, 192, seed=seed) for seed in range(4)]
    results = []
    for image in images:
        results.append(climb(memory.begin(image), engine))
        memory.finish(results[-1][-1])
    for image, made in list(zip(images, results, strict=True))[1:]:
        for ours, alone in zip(made, climb(engine.begin(image), engine), strict=True):
            assert_same(ours, alone)
            assert ours.macs == alone.macs


@built
def test_a_size_that_a_stream_comes_to_later_is_computed_as_a_whole_first():
    engine = engine_of(96, 192)
    memory = memory_of(engine)
    for value in (0, 255):
        show(memory, engine, with_corner(IMAGE, value), upto=4)
    whole = climb(engine.begin(IMAGE), engine)
    made = [climb(memory.begin(with_corner(IMAGE, 100)), engine)]
    memory.finish(made[-1][-1])
    made.append(climb(memory.begin(with_corner(IMAGE, 200)), engine))
    memory.finish(made[-1][-1])
    assert made[0][4].macs == whole[4].macs
    assert made[1][4].macs < 0.6 * whole[4].macs


@built
def test_without_room_for_features_a_stream_goes_on_by_interpolation():
    budget = MemoryBudget(4 << 20)
    engine = engine_of(memory=budget)
    held = [engine.new_features().engine.new_cache((64, 192)) for _ in range(9)]
    assert held[-1] is None
    memory = memory_of(engine)
    first = climb(memory.begin(with_corner(IMAGE, 0)), engine)
    memory.finish(first[-1])
    second, reuse = show(memory, engine, with_corner(IMAGE, 255))
    assert memory.feature_bytes == 0
    assert 0.5 < reuse.share < 1
    kept = (first[-1].logits == second.logits).all(axis=0)
    assert kept.mean() == pytest.approx(reuse.share, abs=0.05)


@built
def test_features_that_were_taken_back_cost_one_whole_frame():
    engine = engine_of()
    memory = memory_of(engine)
    whole = climb(engine.begin(IMAGE), engine)[0].macs
    for value in (0, 255):
        show(memory, engine, with_corner(IMAGE, value))
    for features in list(memory._features._at.values()):
        features.cache.take_back()
    made = [climb(memory.begin(with_corner(IMAGE, 40 * i)), engine) for i in range(1)]
    reuse = memory.finish(made[-1][-1])
    assert made[-1][0].macs == whole
    assert 0 < reuse.share < 1
    after = climb(memory.begin(with_corner(IMAGE, 200)), engine)
    assert after[0].macs < 0.4 * whole


@built
def test_a_frame_that_is_mostly_new_is_computed_without_features():
    engine = engine_of()
    memory = memory_of(engine)
    show(memory, engine, IMAGE)
    mostly = 255 - IMAGE
    mostly[:, -64:] = IMAGE[:, -64:]
    made = climb(memory.begin(mostly), engine)
    assert memory.finish(made[-1]).share == 0
    for ours, alone in zip(made, climb(engine.begin(mostly), engine), strict=True):
        assert_same(ours, alone)
        assert ours.macs == alone.macs
