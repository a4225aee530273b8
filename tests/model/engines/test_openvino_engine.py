"""The OpenVINO engine in a process that lives on."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PROGRAM = """
import faulthandler, gc, signal, sys
faulthandler.enable()
from anytime_model.engines.openvino_engine import OpenVinoEngine
from model.factories import random_pixels, tiny_checkpoint
calls = []
signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
first, second = (OpenVinoEngine(tiny_checkpoint()) for _ in range(2))
for engine in (first, second, first):
    for size in ((64, 96), (96, 64)):
        engine.begin(random_pixels(*size)).advance()
del engine, first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGUSR1)
print("calls", len(calls))
"""


@pytest.mark.slow
def test_a_signal_after_engines_have_gone_in_any_order_ends_nothing():
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{PROGRAM}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "calls 1\n"), done.stderr
