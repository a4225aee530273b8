"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anytime_model.data.camvid import CamVid
from anytime_model.data.lspet import Lspet
from anytime_model.data.sample import SampleSource

SOURCES: dict[str, Callable[[Path, str], SampleSource]] = {"camvid": CamVid, "lspet": Lspet}
"""Opens a split: called with the data set's folder and the split's name."""
