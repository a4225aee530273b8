"""What distinguishes one network from another, as one frozen value.

It says which layers exist. It refuses to know how they are run: thresholds, criteria and masks are
arguments of a run (`confidence`), and sizes belong to `presets`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from anytime_model.errors import ConfigError
from anytime_model.presets import PRESETS, Preset

TaskName = Literal["segmentation", "pose"]
ExitStyle = Literal["original", "redesigned"]

NUM_EXITS = 4
POSE_HEAD_WIDTH = 64
MAX_DEPTH = 3


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network's structure.

    Attributes:
        preset: name of a size in `presets.PRESETS`.
        outputs: channels of every map: classes, or joints.
        task: "segmentation" (class logits) or "pose" (one heat-map a joint).
        exits: "original" (1x1 convolutions, the paper's EE) or "redesigned" (encoder-decoder, RH)
            for exits 1 to 3. The last exit is always the original one.
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
    depths: tuple[int, int, int] = (3, 2, 1)
    head_width: int = 0

    def __post_init__(self) -> None:
        _one_of("preset", self.preset, PRESETS)
        _one_of("task", self.task, get_args(TaskName))
        _one_of("exits", self.exits, get_args(ExitStyle))
        if self.outputs < 1:
            raise ConfigError(
                f"outputs is {self.outputs}; give the number of classes or joints, >= 1."
            )
        if self.head_width < 0:
            raise ConfigError(
                f"head_width is {self.head_width}; expected a number of channels, >= 0."
            )
        if not self.head_width:
            paper = self.size.head_width
            width = min(POSE_HEAD_WIDTH, paper) if self.task == "pose" else paper
            object.__setattr__(self, "head_width", width)
        if len(self.depths) != NUM_EXITS - 1 or not all(1 <= d <= MAX_DEPTH for d in self.depths):
            raise ConfigError(
                f"depths is {self.depths}; give three whole numbers from 1 to {MAX_DEPTH}, "
                "one for each early exit, such as 3, 2, 1."
            )

    @property
    def size(self) -> Preset:
        """The preset's widths and depths."""
        return PRESETS[self.preset]


def _one_of(field: str, found: str, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if found not in names:
        raise ConfigError(f"{field} is {found!r}; expected one of {', '.join(map(repr, names))}.")
