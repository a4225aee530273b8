"""The configuration of an HRNet with exits: one frozen value that says which layers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from anytime_model.errors import ConfigError
from anytime_model.networks.base import check_structure
from anytime_model.networks.hrnet.presets import PRESETS, Preset
from anytime_model.tasks import TASKS, TaskName

ExitStyle = Literal["original", "redesigned"]

DEPTHS = (3, 2, 1)
MAX_DEPTH = 3
MAX_HEAD_WIDTH = 4096


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network's structure.

    Attributes:
        preset: name of a size in `presets.PRESETS`.
        outputs: channels of every map: classes, or joints.
        task: "segmentation" (class logits) or "pose" (one heat-map a joint).
        exits: "original" (1x1 convolutions, the paper's EE) or "redesigned" (encoder-decoder, RH)
            for all exits but the last, which is always the original one.
        depths: how often redesigned exits 1, 2, 3 halve their resolution. The paper's choice is
            D = N - k, that is (3, 2, 1); its Figure 5 compares (1, 1, 1) and (3, 3, 3).
        head_width: channels inside a redesigned exit. 0 means the paper's: 128 for W48, else 64.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    preset: str
    outputs: int
    task: TaskName = "segmentation"
    exits: ExitStyle = "redesigned"
    depths: tuple[int, ...] = DEPTHS
    head_width: int = 0

    def __post_init__(self) -> None:
        check_structure(self, preset=PRESETS, exits=get_args(ExitStyle))
        if type(self.head_width) is not int or not 0 <= self.head_width <= MAX_HEAD_WIDTH:
            raise ConfigError(
                f"head_width is {self.head_width!r}; expected a whole number of channels, at most "
                f"{MAX_HEAD_WIDTH}; 0 for the paper's."
            )
        if not self.head_width:
            width = TASKS[self.task].head_width(self.size.head_width)
            object.__setattr__(self, "head_width", width)
        early = self.num_exits - 1
        if len(self.depths) != early or not all(
            type(d) is int and 1 <= d <= MAX_DEPTH for d in self.depths
        ):
            raise ConfigError(
                f"depths is {self.depths}; give {early} whole numbers from 1 to {MAX_DEPTH}, "
                f"one for each early exit, such as {', '.join(map(str, DEPTHS))}."
            )

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], outputs: int) -> NetworkConfig:
        """The configuration that a manifest's entries describe.

        Raises:
            KeyError: an entry is missing.
            TypeError: `depths` is no list.
            ConfigError: a value is unknown or out of range.
        """
        return cls(
            preset=entries["preset"],
            outputs=outputs,
            task=entries["task"],
            exits=entries["exits"],
            depths=tuple(entries.get("depths", DEPTHS)),
            head_width=entries.get("head_width", 0),
        )

    def entries(self) -> dict[str, Any]:
        """The configuration as entries of a manifest, without family and labels."""
        return {
            "preset": self.preset,
            "task": self.task,
            "exits": self.exits,
            "depths": list(self.depths),
            "head_width": self.head_width,
        }

    @property
    def family(self) -> str:
        """Name of the family in the registry."""
        return "hrnet"

    @property
    def size(self) -> Preset:
        """The preset's widths and depths."""
        return PRESETS[self.preset]

    @property
    def num_exits(self) -> int:
        """Number of stages, each with an exit: 4."""
        return len(self.size.stage_widths)

    @property
    def may_skip_exits(self) -> bool:
        """No: a stage computes where the map of the exit before it is not settled."""
        return False

    @property
    def map_stride(self) -> int:
        """The finest branch, and so every map, is at 1/4 of the padded image's resolution."""
        return 4

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this, px: the coarsest branch is at 1/32."""
        return self.map_stride << (len(self.size.stage_widths[-1]) - 1)
