"""PASCAL-Context in both of its layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anytime_model.data.pascal_context import PascalContext
from anytime_model.data.sample import IGNORE
from model.data_factories import (
    context_tree,
)


@pytest.mark.parametrize("published", [True, False])
def test_pascal_context_maps_its_59_classes(tmp_path: Path, *, published: bool) -> None:
    source = PascalContext(context_tree(tmp_path, published=published), "train")
    assert len(source) == 1
    labels = source[0].labels
    assert labels is not None
    assert set(np.unique(labels)) == {0, 58, IGNORE}
    assert len(source.outputs) == 59
