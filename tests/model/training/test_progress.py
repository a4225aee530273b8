"""A progress file that cannot be used is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from anytime_model.errors import CheckpointError
from anytime_model.training import progress
from anytime_model.training.loop import PROGRESS


@pytest.mark.parametrize("content", [b"", b"not a progress file", b"PK\x03\x04 truncated"])
def test_a_damaged_progress_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PROGRESS).write_bytes(content)
    with pytest.raises(CheckpointError, match="is no progress file"):
        progress.load(tmp_path / PROGRESS, "any")


def test_missing_progress_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such progress file"):
        progress.load(tmp_path / PROGRESS, "any")
