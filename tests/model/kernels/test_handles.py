"""Handles of the kernels: programs are checked before they run, arrays are used again safely."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anytime_model.engines.base import resized_image
from anytime_model.kernels import library
from anytime_model.kernels.handles import ArrayPool, RunHandle, decode_labels, resized
from anytime_model.kernels.library import KernelError, Storage
from model.comparing import native_isas
from model.factories import one_change, plan_maker

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")


@pytest.fixture
def plan_of():
    """Make a plan from a tiny program with one thing changed."""
    return plan_maker()


def addresses(*arrays):
    return [array.__array_interface__["data"][0] for array in arrays]


def test_memory_of_an_array_is_used_again_once_every_view_of_it_is_gone():
    pool = ArrayPool((4, 6, 3))
    array = pool.take()
    (memory,) = addresses(array)
    view = array.transpose(2, 0, 1)[1:]
    held = [array, view, torch.from_numpy(view)]
    del array, view
    others = []
    while held:
        others.append(pool.take())
        held.pop(0)
    assert memory not in addresses(*others)
    assert memory in addresses(pool.take())


@given(st.lists(st.integers(0, 5), max_size=40))
def test_arrays_in_use_never_share_memory(drops):
    pool = ArrayPool((2, 3))
    used = {}
    for n, drop in enumerate(drops):
        array = pool.take()
        array[:] = n
        used[n] = array
        for key in list(used)[:drop]:
            del used[key]
        assert len(set(addresses(*used.values()))) == len(used)
        assert all((array == key).all() for key, array in used.items())


@built
@pytest.mark.parametrize("size", [(0, 32), (33, 32), (-32, 32), (1 << 20, 32)])
def test_a_plan_of_an_impossible_size_is_refused(plan_of, size):
    with pytest.raises(KernelError, match="multiples of 32"):
        plan_of(size=size)


@built
def test_a_program_that_would_touch_what_it_may_not_is_refused(plan_of):
    plan_of()
    for field, value in [
        *[("kind", 9), ("where", 7), ("conv", 10_000), ("conv", -2), ("norm", 10_000)],
        *[("out", -1), ("out", 10_000), ("out", 0), ("residual", 10_000), ("inputs", 5)],
        *[("inputs", -1), ("first", 1)],
    ]:
        for at in (0, -1):

            def change(slots, ops, at=at, field=field, value=value):
                setattr(ops[at], field, value)

            with pytest.raises(KernelError, match=r"operation|stages"):
                plan_of(change)


@built
def test_slots_that_do_not_fit_their_operations_are_refused(plan_of):
    def narrower(slots, ops):
        slots[ops[3].out].channels -= 1

    def coarser(slots, ops):
        slots[ops[3].out].level += 1

    def gone(slots, ops):
        slots[ops[3].sources[0]].storage = Storage.LOCAL

    def alone(slots, ops):
        ops[-1].fused = 1

    for change in (narrower, coarser, gone, alone):
        with pytest.raises(KernelError):
            plan_of(change)


@built
def test_any_single_change_to_a_program_is_refused_or_harmless(plan_of):
    """A fuzz of the checks: whatever passes them must also run without harm."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        try:
            plan = plan_of(one_change(rng), size=(32, 32))
        except KernelError:
            refused += 1
            continue
        handle = RunHandle(plan)
        handle.start_floats(np.zeros((3, 32, 32), np.float32))
        for _ in range(4):
            while handle.advance(1):
                pass
            handle.settle(library.Measure.PROBABILITY, most=0.4)
    assert refused > 100


@built
def test_labels_larger_than_the_map_are_refused():
    loaded = library.load()
    with pytest.raises(KernelError, match="cannot be decoded"):
        decode_labels(loaded, loaded.isas[0], np.zeros((3, 4, 4), np.float32), (17, 16))


@built
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((360, 480), (192, 256)),
        ((360, 480), (91, 121)),
        ((100, 50), (50, 37)),
        ((61, 93), (244, 31)),
        ((9, 9), (18, 3)),
        ((40, 11), (1, 1)),
    ],
)
def test_every_instruction_set_resizes_to_the_bytes_of_pillow(before, after):
    loaded = library.load()
    image = np.random.default_rng(0).integers(0, 256, (*before, 3), np.uint8)
    size = (max(after[0], before[0] // 4 + 1), max(after[1], before[1] // 4 + 1))
    expected = resized_image(image, size)
    for isa in loaded.isas:
        np.testing.assert_array_equal(resized(loaded, isa, image, size), expected, isa)


@built
def test_an_image_too_small_to_be_resized_so_much_is_refused():
    loaded = library.load()
    image = np.zeros((3, 40, 3), np.uint8)
    with pytest.raises(KernelError, match="cannot be resized so much"):
        resized(loaded, loaded.isas[0], image, (2, 20))


@built
def test_calls_in_the_wrong_order_are_refused(plan_of):
    run = RunHandle(plan_of())
    prior = np.zeros((16, 24, 5), np.float32), np.ones((16, 24), bool)
    with pytest.raises(KernelError, match="no image"):
        run.advance(0)
    run.start_floats(np.zeros((3, 64, 96), np.float32))
    with pytest.raises(KernelError, match="no map"):
        run.settle(library.Measure.PROBABILITY)
    with pytest.raises(KernelError, match="right after the first map"):
        run.apply_prior(*prior)
    run.advance(0)
    run.apply_prior(*prior)
    with pytest.raises(KernelError, match="right after the first map"):
        run.apply_prior(*prior)
