"""What goes wrong around the native engine is an error that says what to do, never a crash."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from anytime_model.engines import select
from anytime_model.engines.native import NativeEngine
from anytime_model.engines.native_lowering import lower
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import ConfigError, ImageError
from anytime_model.kernels import build, library
from anytime_model.kernels.handles import RunHandle, decode_labels
from anytime_model.kernels.library import KernelError, Kind, NotBuiltError, Place
from model.engine_fakes import (
    assert_agrees,
    native,
    native_isas,
    plan_maker,
    run,
    smooth_pixels,
    tiny_checkpoint,
)
from model.model_fakes import random_pixels

built = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """A cache without a library, and a process that has not loaded one."""
    monkeypatch.setenv("ANYTIME_KERNEL_CACHE", str(tmp_path))
    library.load.cache_clear()
    yield tmp_path
    library.load.cache_clear()


def test_without_a_library_the_native_engine_says_how_to_build_one(nothing_built):
    with pytest.raises(NotBuiltError, match=r"anytime_model\.kernels\.build"):
        NativeEngine(tiny_checkpoint())


def test_auto_falls_back_to_torch_with_a_warning_that_says_why(nothing_built):
    with pytest.warns(select.EngineFallbackWarning, match="not built"):
        engine = select.make_engine(tiny_checkpoint(), "auto")
    assert isinstance(engine, TorchEngine)


def test_an_engine_that_was_asked_for_by_name_is_never_replaced(nothing_built):
    with pytest.raises(NotBuiltError):
        select.make_engine(tiny_checkpoint(), "native")


@built
def test_auto_takes_the_native_engine_without_a_word(monkeypatch):
    monkeypatch.delenv(select.VARIABLE, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(select.make_engine(tiny_checkpoint()), NativeEngine)


def test_the_environment_chooses_the_engine(monkeypatch):
    monkeypatch.setenv(select.VARIABLE, "torch")
    assert isinstance(select.make_engine(tiny_checkpoint()), TorchEngine)
    monkeypatch.setenv(select.VARIABLE, "abacus")
    with pytest.raises(ConfigError, match="abacus"):
        select.make_engine(tiny_checkpoint())


def test_without_a_compiler_building_says_what_to_install(nothing_built):
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build(build.Recipe(("no-such-compiler",)))


def test_what_the_compiler_says_is_passed_on(nothing_built):
    with pytest.raises(build.BuildError) as caught:
        build.build(build.Recipe((sys.executable, "-c", "raise SystemExit('so it says')")))
    assert "so it says" in caught.value.output
    assert not list(nothing_built.rglob("*.so"))


def test_another_recipe_makes_another_library():
    paths = {build.library_path(build.Recipe(sanitize=sanitize)) for sanitize in (True, False)}
    assert len(paths) == 2


def test_a_wrong_number_of_threads_is_refused(monkeypatch):
    monkeypatch.setenv("ANYTIME_THREADS", "many")
    with pytest.raises(KernelError, match="many"):
        library._default_threads()


@built
def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(KernelError, match="expected one of"):
        native(tiny_checkpoint(), isa="mmx")


@built
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_normalised_image_must_be_finite(value):
    image = np.zeros((3, 40, 40), np.float32)
    image[1, 7, 9] = value
    with pytest.raises(ImageError, match="finite"):
        native(tiny_checkpoint()).begin_normalised(image)


@built
def test_a_normalised_image_must_have_its_shape():
    for shape in [(40, 40, 3), (3, 40), (3, 0, 40)]:
        with pytest.raises(ImageError):
            native(tiny_checkpoint()).begin_normalised(np.zeros(shape, np.float32))


@built
def test_an_image_beyond_the_memory_bound_is_refused_and_the_next_one_runs():
    engine = native(tiny_checkpoint(), memory_bytes=3 << 20)
    with pytest.raises(ImageError, match="MiB"):
        engine.begin(random_pixels(1000, 1000))
    assert len(run(engine, random_pixels(64, 96))) == 4


@built
def test_memory_stays_within_its_bound_while_sizes_come_and_go():
    checkpoint = tiny_checkpoint()
    bound = 6 << 20
    engine = native(checkpoint, memory_bytes=bound)
    for height in range(32, 320, 32):
        image = random_pixels(height, 96)
        assert_agrees(run(engine, image), run(TorchEngine(checkpoint), image))
        assert 0 < engine.memory_bytes <= bound


@built
def test_buffers_of_images_under_way_are_never_taken_away():
    checkpoint = tiny_checkpoint()
    engine = native(checkpoint, memory_bytes=8 << 20)
    image = random_pixels(64, 96)
    begun = engine.begin(image)
    results = [begun.advance()]
    for height in range(32, 320, 32):
        run(engine, random_pixels(height, 96))
    results += [begun.advance() for _ in range(3)]
    assert_agrees(results, run(TorchEngine(checkpoint), image))


@built
def test_a_forgotten_run_gives_its_buffers_back():
    engine = native(tiny_checkpoint())
    image = random_pixels(64, 96)
    engine.begin(image)
    before = engine.memory_bytes
    for _ in range(5):
        engine.begin(image)
    assert engine.memory_bytes == before


@built
def test_engines_in_several_threads_share_the_cores_and_agree():
    checkpoint = tiny_checkpoint()
    image = smooth_pixels(64, 96)
    expected = run(TorchEngine(checkpoint), image)
    outcomes = []

    def work():
        engine = native(checkpoint)
        outcomes.append([run(engine, image) for _ in range(10)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    for results in outcomes:
        for one in results:
            assert_agrees(one, expected)


@built
def test_the_number_of_threads_may_change_between_images():
    loaded = library.load()
    before = loaded.threads()
    checkpoint = tiny_checkpoint()
    engine, image = native(checkpoint), smooth_pixels(64, 96)
    expected = run(TorchEngine(checkpoint), image)
    try:
        for count in (1, 5, 2):
            assert loaded.threads(count) == count
            assert_agrees(run(engine, image), expected)
    finally:
        loaded.threads(before)


@built
def test_a_forked_child_computes_with_threads_of_its_own():
    script = """
import os, numpy as np, warnings
warnings.simplefilter("ignore")
from model.engine_fakes import native, run, tiny_checkpoint
from model.model_fakes import random_pixels
engine, image = native(tiny_checkpoint()), random_pixels(64, 96)
before = run(engine, image)[-1].logits
child = os.fork()
if child == 0:
    same = np.allclose(run(engine, image)[-1].logits, before)
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd="tests",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@built
def test_when_memory_runs_out_it_is_an_error():
    script = """
import resource, warnings
warnings.simplefilter("ignore")
from model.engine_fakes import native, run, tiny_checkpoint
from model.model_fakes import random_pixels
from anytime_model.errors import ImageError
engine = native(tiny_checkpoint(), memory_bytes=1 << 40)
run(engine, random_pixels(64, 96))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    engine.begin(random_pixels(1200, 1600))
except ImageError as e:
    assert "memory" in str(e), e
else:
    raise SystemExit("no error")
assert len(run(engine, random_pixels(64, 96))) == 4
"""
    if build.Recipe.from_environment().sanitize:
        pytest.skip("a sanitizer needs its address space")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd="tests",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def plan_of():
    """Make a plan from a tiny program with one thing changed."""
    return plan_maker()


@built
@pytest.mark.parametrize("size", [(0, 32), (33, 32), (-32, 32), (1 << 20, 32)])
def test_a_plan_of_an_impossible_size_is_refused(plan_of, size):
    with pytest.raises(KernelError, match="multiples of 32"):
        plan_of(size=size)


@built
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("kind", 9), ("where", 7), ("conv", 10_000), ("conv", -2), ("norm", 10_000)],
        *[("out", -1), ("out", 10_000), ("out", 0), ("residual", 10_000), ("inputs", 5)],
        *[("inputs", -1), ("first", 1)],
    ],
)
def test_a_program_that_would_touch_what_it_may_not_is_refused(plan_of, field, value):
    plan_of()
    for at in (0, -1):

        def change(slots, ops, at=at):
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
        slots[ops[3].sources[0]].place = Place.LOCAL

    def alone(slots, ops):
        ops[-1].together = 1

    for change in (narrower, coarser, gone, alone):
        with pytest.raises(KernelError):
            plan_of(change)


@built
def test_any_single_change_to_a_program_is_refused_or_harmless(plan_of):
    """A fuzz of the checks: whatever passes them must also run without harm."""
    rng = np.random.default_rng(0)
    fields = [
        "kind",
        "where",
        "conv",
        "norm",
        "keep",
        "out",
        "first",
        "residual",
        "together",
        "banded",
    ]
    refused = 0
    for _ in range(300):

        def change(slots, ops):
            op = ops[rng.integers(len(ops))]
            setattr(op, fields[rng.integers(len(fields))], int(rng.integers(-1, 12)))

        try:
            plan = plan_of(change, size=(32, 32))
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
        decode_labels(loaded, loaded.isas[0], np.zeros((4, 4, 3), np.float32), (17, 16))


@built
def test_an_advance_without_an_image_is_refused(plan_of):
    with pytest.raises(KernelError, match="no image"):
        RunHandle(plan_of()).advance(0)


@built
def test_pause_is_called_between_kernels(monkeypatch):
    monkeypatch.setattr("anytime_model.engines.native.SLICE_US", 1)
    calls = []
    engine = native(tiny_checkpoint())
    run(engine, random_pixels(64, 96), pause=lambda: calls.append(1))
    kernels = sum(o.kind is not Kind.FILL for o in lower(tiny_checkpoint().network).operations)
    assert len(calls) > kernels / 2
