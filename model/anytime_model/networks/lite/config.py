"""The configuration of a lite network: one frozen value that says which layers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anytime_model.errors import ConfigError
from anytime_model.networks.base import check_structure
from anytime_model.networks.lite.presets import MAP_STRIDES, PRESETS, LitePreset
from anytime_model.tasks import TaskName

MAX_HEAD_WIDTH = 4096


@dataclass(frozen=True, slots=True)
class LiteConfig:
    """A lite network's structure.

    Attributes:
        preset: name of a size in `presets.PRESETS`.
        outputs: channels of every map: classes, or joints.
        task: "segmentation" (class logits) or "pose" (one heat-map a joint).
        head_widths: channels inside each exit. Empty means the preset's.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    preset: str
    outputs: int
    task: TaskName = "segmentation"
    head_widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_structure(self, preset=PRESETS)
        if not self.head_widths:
            object.__setattr__(self, "head_widths", self.size.head_widths)
        if len(self.head_widths) != self.num_exits or not all(
            type(width) is int and 1 <= width <= MAX_HEAD_WIDTH for width in self.head_widths
        ):
            raise ConfigError(
                f"head_widths is {self.head_widths}; give {self.num_exits} whole numbers of "
                f"channels from 1 to {MAX_HEAD_WIDTH}, one for each exit."
            )

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], outputs: int) -> LiteConfig:
        """The configuration that a manifest's entries describe.

        Raises:
            KeyError: an entry is missing.
            TypeError: `head_widths` is no list.
            ConfigError: a value is unknown or out of range.
        """
        return cls(
            preset=entries["preset"],
            outputs=outputs,
            task=entries["task"],
            head_widths=tuple(entries.get("head_widths", ())),
        )

    def entries(self) -> dict[str, Any]:
        """The configuration as entries of a manifest, without family and labels."""
        return {"preset": self.preset, "task": self.task, "head_widths": list(self.head_widths)}

    @property
    def family(self) -> str:
        """Name of the family in the registry."""
        return "lite"

    @property
    def size(self) -> LitePreset:
        """The preset's widths and depths."""
        return PRESETS[self.preset]

    @property
    def num_exits(self) -> int:
        """Number of stages, each with an exit: 4."""
        return len(self.size.stages)

    @property
    def may_skip_exits(self) -> bool:
        """Yes: features are computed everywhere, whatever the masks."""
        return True

    @property
    def map_stride(self) -> int:
        """Every map is at 1/4 of the padded image's resolution."""
        return MAP_STRIDES[0]

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this, px: the coarsest map is at 1/32."""
        return MAP_STRIDES[-1]
