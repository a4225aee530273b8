"""The native engine around its kernels: threads, pauses, refusals, and running out of memory."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from anytime_model.engines.native.lowering import lower
from anytime_model.engines.torch_engine import TorchEngine
from anytime_model.errors import InputError
from anytime_model.kernels import library
from anytime_model.kernels.build import BuildOptions
from anytime_model.kernels.library import KernelError, Kind
from model.comparing import assert_agrees, native, native_isas, run
from model.factories import random_pixels, smooth_pixels, tiny_checkpoint

pytestmark = pytest.mark.skipif(not native_isas(), reason="the native kernels are not built")


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(KernelError, match="expected one of"):
        native(tiny_checkpoint(), isa="mmx")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40, 3), np.float32),
        np.zeros((3, 40), np.float32),
        np.zeros((3, 0, 40), np.float32),
        np.full((3, 40, 40), np.nan, np.float32),
        np.full((3, 40, 40), -np.inf, np.float32),
    ],
    ids=lambda a: f"{a.shape} {a.mean() if a.size else 'empty'}",
)
def test_what_is_no_normalised_image_is_refused(image):
    with pytest.raises(InputError):
        native(tiny_checkpoint()).begin_normalised(image)


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


def test_pause_is_called_between_kernels(monkeypatch):
    monkeypatch.setattr("anytime_model.engines.native.engine.SLICE_US", 1)
    calls = []
    engine = native(tiny_checkpoint())
    run(engine, random_pixels(64, 96), pause=lambda: calls.append(1))
    operations = lower(tiny_checkpoint().network).operations
    kernels = sum(o.kind is not Kind.INTERPOLATE for o in operations)
    assert len(calls) > kernels / 2


def succeeds(script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd="tests",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_forked_child_computes_with_threads_of_its_own():
    succeeds("""
import os, numpy as np, warnings
warnings.simplefilter("ignore")
from model.comparing import native, run
from model.factories import random_pixels, tiny_checkpoint
engine, image = native(tiny_checkpoint()), random_pixels(64, 96)
before = run(engine, image)[-1].logits
child = os.fork()
if child == 0:
    same = np.allclose(run(engine, image)[-1].logits, before)
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
""")


@pytest.mark.slow
@pytest.mark.skipif(
    BuildOptions.from_environment().sanitize, reason="a sanitizer needs its address space"
)
def test_when_memory_runs_out_it_is_an_error():
    succeeds("""
import resource, warnings
warnings.simplefilter("ignore")
from model.comparing import native, run
from model.factories import random_pixels, tiny_checkpoint
from anytime_model.engines.native.memory import MemoryBudget
from anytime_model.errors import InputError
engine = native(tiny_checkpoint(), memory=MemoryBudget(1 << 40))
run(engine, random_pixels(64, 96))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    engine.begin(random_pixels(1200, 1600))
except InputError as e:
    assert "memory" in str(e), e
else:
    raise SystemExit("no error")
assert len(run(engine, random_pixels(64, 96))) == 4
""")
