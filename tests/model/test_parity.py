"""The network against outputs of the authors' published network."""

from pathlib import Path

import numpy as np
import pytest

from anytime_model.errors import CheckpointError
from anytime_model.parity import agree
from model.factories import GOLDEN

ELSEWHERE = Path(__file__).parents[3] / "shared" / "golden"
FILES = sorted(
    {f.name: f for folder in (ELSEWHERE, GOLDEN) for f in folder.glob("w18_*.npz")}.values()
)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_the_network_agrees_with_the_published_one(file):
    results = agree(file)
    assert [r.exit for r in results] == [1, 2, 3, 4]
    assert all(r.agrees for r in results), results


def test_a_changed_reference_is_noticed(tmp_path):
    with np.load(GOLDEN / "w18_adpc.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["exit3"][0, 0, 0, 0] += 1
    arrays["active_after_2_12x24"] ^= 0b1000
    np.savez(tmp_path / "changed.npz", **arrays)
    results = agree(tmp_path / "changed.npz")
    assert [r.agrees for r in results] == [True, False, False, True]
    assert results[1].differing > 0
    assert results[2].relative_error > 1e-2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "no such file"), (b"not a zip file", "no reference file")],
)
def test_a_file_that_is_no_reference_is_refused(tmp_path, content, complaint):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        agree(path)


def test_a_reference_without_description_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", exit1=np.zeros(3))
    with pytest.raises(CheckpointError, match="meta"):
        agree(tmp_path / "x.npz")
