"""Cityscapes as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anytime_model.data.cityscapes import CLASSES, TRAINED_IDS, Cityscapes
from anytime_model.data.sample import IGNORE
from model.data_factories import (
    cityscapes_tree,
)


def test_cityscapes_keeps_the_19_trained_ids_and_ignores_the_others(tmp_path: Path) -> None:
    sample = Cityscapes(cityscapes_tree(tmp_path), "val")[0]
    assert sample.name == "lindau_000000_000019"
    assert sample.labels is not None
    assert sample.labels[0, 0] == IGNORE
    assert set(np.unique(sample.labels)) == {0, 18, IGNORE}
    assert len(CLASSES) == len(TRAINED_IDS) == 19
