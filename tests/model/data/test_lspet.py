"""LSPET crops and their annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anytime_model.data.lspet import Lspet
from anytime_model.errors import DataError
from model.data_factories import (
    lspet_tree,
)


def test_lspet_leaves_flagged_people_out_and_stands_in_for_unseen_heads(tmp_path: Path) -> None:
    source = Lspet(lspet_tree(tmp_path), "val")
    assert len(source) == 3
    assert source[0].head_px == pytest.approx(0.184 * 20)
    assert source[1].head_px == 5.0
    joints = source[1].joints
    assert joints is not None
    assert joints[3].tolist() == [7.0, 9.0, 1.0]
    assert joints[13, 2] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ('{"pictures": []}', "lacks"),
        ('{"images": []}', "has no image of the split"),
    ],
)
def test_malformed_lspet_annotations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    root = lspet_tree(tmp_path)
    (root / "annotations.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Lspet(root, "train")


def test_a_person_with_too_few_joints_is_refused(tmp_path: Path) -> None:
    root = lspet_tree(tmp_path)
    content = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    content["images"][0]["joints"] = [[0, 0, 0]]
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="expected 14 joints"):
        Lspet(root, "train")[0]
