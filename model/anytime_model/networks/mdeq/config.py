"""The configuration of an MDEQ: one frozen value that says which layers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from anytime_model.errors import ConfigError
from anytime_model.networks.base import check_structure
from anytime_model.tasks import TaskName

ITERATIONS = (4, 6, 8, 10)
"""After which the ADP-C paper decodes a map (section 3, "Baselines")."""

RESOLUTIONS = 4
"""The equilibrium has maps at 1/4, 1/8, 1/16 and 1/32 of the image's resolution."""


@dataclass(frozen=True, slots=True)
class MdeqPreset:
    """One network size.

    Attributes:
        widths: channels at each resolution, finest first.
        expansion: how many times wider a residual block is inside.
        groups: of the group normalisations.
    """

    widths: tuple[int, int, int, int]
    expansion: int
    groups: int = 8


PRESETS = {
    "tiny": MdeqPreset((8, 16, 24, 32), expansion=5),
    "small": MdeqPreset((32, 64, 128, 256), expansion=5),
    "xl": MdeqPreset((88, 176, 352, 704), expansion=6),
}
"""Those of the authors' Cityscapes models, and one at toy size for tests."""


@dataclass(frozen=True, slots=True)
class MdeqConfig:
    """An MDEQ's structure.

    Attributes:
        preset: name of a size in `PRESETS`.
        outputs: channels of every map: classes, or joints.
        task: "segmentation" (class logits) or "pose" (one heat-map a joint).
        iterations: evaluations of the equilibrium's function up to each exit, rising.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    preset: str
    outputs: int
    task: TaskName = "segmentation"
    iterations: tuple[int, ...] = ITERATIONS

    def __post_init__(self) -> None:
        check_structure(self, preset=PRESETS)
        steps = (0, *self.iterations)
        if len(steps) < 3 or any(later <= earlier for earlier, later in pairwise(steps)):
            raise ConfigError(
                f"iterations is {self.iterations}; give at least two numbers, >= 1 and rising, one "
                "for each exit."
            )

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], outputs: int) -> MdeqConfig:
        """The configuration that a manifest's entries describe.

        Raises:
            KeyError: an entry is missing.
            TypeError: `iterations` is no list.
            ConfigError: a value is unknown or out of range.
        """
        return cls(
            preset=entries["preset"],
            outputs=outputs,
            task=entries["task"],
            iterations=tuple(entries.get("iterations", ITERATIONS)),
        )

    def entries(self) -> dict[str, Any]:
        """The configuration as entries of a manifest, without family and labels."""
        return {"preset": self.preset, "task": self.task, "iterations": list(self.iterations)}

    @property
    def family(self) -> str:
        """Name of the family in the registry."""
        return "mdeq"

    @property
    def size(self) -> MdeqPreset:
        """The preset's widths."""
        return PRESETS[self.preset]

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.iterations)

    @property
    def may_skip_exits(self) -> bool:
        """A run may leave exits out: iterations do not depend on maps."""
        return True

    @property
    def map_stride(self) -> int:
        """Every map is at 1/4 of the padded image's resolution."""
        return 4

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this, px: the coarsest map is at 1/32."""
        return 32
