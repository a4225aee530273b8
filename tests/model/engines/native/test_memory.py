"""One bound holds for the buffers of all native engines of a process."""

import gc

import pytest

from anytime_model.engines.native.memory import MemoryBudget, process_budget
from anytime_model.engines.select import make_engine
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import InputError, NoRoomError
from model.comparing import assert_agrees, native, native_isas, run
from model.factories import random_pixels, tiny_checkpoint

pytestmark = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")


def used_by(*sizes):
    """Bytes that one engine needs for images of these sizes, one at a time."""
    budget = MemoryBudget()
    engine = native(tiny_checkpoint(), memory=budget)
    for size in sizes:
        engine.begin(random_pixels(*size))
    return budget.used_bytes


def test_an_image_beyond_the_bound_is_refused_and_the_next_one_runs():
    engine = native(tiny_checkpoint(), memory=MemoryBudget(3 << 20))
    with pytest.raises(InputError, match="MiB"):
        engine.begin(random_pixels(1000, 1000))
    assert len(run(engine, random_pixels(64, 96))) == 4


def test_an_image_of_an_impossible_size_is_refused():
    with pytest.raises(InputError, match="32768 px"):
        native(tiny_checkpoint()).begin(random_pixels(32769, 1))


def test_memory_stays_within_its_bound_while_sizes_of_two_models_come_and_go():
    checkpoints = tiny_checkpoint(), tiny_checkpoint("pose")
    budget = MemoryBudget(6 << 20)
    engines = [native(checkpoint, memory=budget) for checkpoint in checkpoints]
    for height in range(32, 320, 64):
        image = random_pixels(height, 96)
        for engine, checkpoint in zip(engines, checkpoints, strict=True):
            assert_agrees(run(engine, image), run(TorchEngine(checkpoint), image))
            assert 0 < budget.used_bytes <= budget.limit_bytes


def test_the_plans_unused_for_longest_go_first_whichever_engine_they_belong_to():
    large, small, narrow = (128, 128), (64, 64), (32, 128)
    budget = MemoryBudget(used_by(large) + used_by(narrow) + 1000)
    one, other = (native(tiny_checkpoint(), memory=budget) for _ in range(2))
    run(one, random_pixels(*large))
    run(other, random_pixels(*small))
    run(one, random_pixels(*large))
    run(other, random_pixels(*narrow))  # the small plan goes, not the one used last
    assert budget.used_bytes == used_by(large) + used_by(narrow)


def test_buffers_of_images_under_way_are_never_taken_away():
    checkpoint = tiny_checkpoint()
    budget = MemoryBudget(8 << 20)
    engine, other = native(checkpoint, memory=budget), native(checkpoint, memory=budget)
    image = random_pixels(64, 96)
    begun = engine.begin(image)
    results = [begun.advance()]
    for height in range(32, 320, 32):
        run(other, random_pixels(height, 96))
    results += [begun.advance() for _ in range(3)]
    assert_agrees(results, run(TorchEngine(checkpoint), image))


def test_a_forgotten_run_gives_its_buffers_back():
    budget = MemoryBudget()
    engine = native(tiny_checkpoint(), memory=budget)
    image = random_pixels(64, 96)
    engine.begin(image)
    before = budget.used_bytes
    for _ in range(5):
        engine.begin(image)
    assert budget.used_bytes == before


def test_an_engine_that_is_gone_leaves_the_budget():
    budget = MemoryBudget()
    engine = native(tiny_checkpoint(), memory=budget)
    run(engine, random_pixels(64, 96))
    assert budget.used_bytes > 0
    del engine
    gc.collect()
    assert budget.used_bytes == 0


def test_engines_share_the_budget_of_the_process_unless_they_are_given_another():
    given = MemoryBudget()
    before = process_budget().used_bytes
    own = make_engine(tiny_checkpoint(), "native", memory=given)
    run(own, random_pixels(64, 96))
    assert process_budget().used_bytes == before
    assert given.used_bytes > 0
    shared = make_engine(tiny_checkpoint(), "native")
    run(shared, random_pixels(64, 96))
    assert process_budget().used_bytes > before


def runs_that_fit(engine, image):
    """Runs under way, as many as there is room for."""
    begun = []
    while len(begun) < 1000:
        try:
            begun.append(engine.begin(image))
        except NoRoomError:
            return begun
    raise AssertionError("there is no bound")


def test_runs_under_way_stay_counted_when_one_more_is_refused():
    budget = MemoryBudget(6 << 20)
    engine = native(tiny_checkpoint(), memory=budget)
    image = random_pixels(64, 96)
    begun = runs_that_fit(engine, image)
    held = budget.used_bytes
    assert len(begun) > 1
    assert budget.limit_bytes / 2 < held <= budget.limit_bytes
    for size in ((64, 96), (96, 64), (64, 96)):
        with pytest.raises(NoRoomError):
            engine.begin(random_pixels(*size))
    assert budget.used_bytes == held
    begun.pop()
    assert engine.begin(image).advance().exit == 1


def test_an_image_that_never_fits_is_told_from_one_that_has_to_wait():
    engine = native(tiny_checkpoint(), memory=MemoryBudget(6 << 20))
    begun = runs_that_fit(engine, random_pixels(64, 96))
    with pytest.raises(InputError, match="Send a smaller one") as refused:
        engine.begin(random_pixels(1000, 1000))
    assert not isinstance(refused.value, NoRoomError)
    assert begun[0].advance().exit == 1
