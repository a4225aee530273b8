"""Two processes that share a batch compute the step that one computes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anytime_model.networks.hrnet.anytime import AnytimeNetwork
from anytime_model.training import progress
from anytime_model.training.loop import PROGRESS
from anytime_model.training.recipe import Recipe, Sgd
from anytime_model.training.run import run
from anytime_model.training.schedules import Steps
from model.data_factories import camvid_tree, tiny_recipe
from model.fakes import Silent

pytestmark = pytest.mark.slow


TESTS = Path(__file__).parents[2]


def shared_recipe() -> Recipe:
    """One step of plain descent, so that differences are not blown up by an optimiser."""
    return replace(tiny_recipe(), epochs=1, optimiser=Sgd(0.05), schedule=Steps(()), batch=4)


def one_epoch(data: str, out: str) -> None:
    """What each process runs."""
    torch.set_num_threads(1)
    run(
        shared_recipe(),
        Path(data),
        Path(out),
        Silent(),
        device=torch.device("cpu"),
        workers=0,
    )


def launch(world: int, data: Path, out: Path) -> None:
    """Run `one_epoch` in so many processes under torchrun, over gloo."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    call = f"one_epoch({str(data)!r}, {str(out)!r})"
    code = f"from model.training.test_processes import one_epoch; {call}"
    script = out.parent / f"script{world}.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, f"--nproc-per-node={world}", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_two_process_step_equals_one_process(tmp_path: Path) -> None:
    """Each weight moves alike, to a hundredth of the largest move in its layer (float rounding)."""
    data = camvid_tree(tmp_path / "camvid", frames=4)
    launch(2, data, tmp_path / "two")
    one_epoch(str(data), str(tmp_path / "one"))
    recipe = shared_recipe()
    one = progress.load(tmp_path / "one" / PROGRESS, recipe.name)
    two = progress.load(tmp_path / "two" / PROGRESS, recipe.name)
    assert one.step == two.step == 1
    torch.manual_seed(recipe.seed)
    start = AnytimeNetwork(recipe.network).state_dict()
    moved = 0
    for key, before in start.items():
        move, twin = one.network[key] - before, two.network[key] - before
        if not before.is_floating_point():
            assert torch.equal(move, twin), key
            continue
        largest = float(move.abs().max())
        moved += largest > 0
        torch.testing.assert_close(twin, move, rtol=0, atol=0.01 * largest + 1e-7, msg=key)
    assert moved > 100
