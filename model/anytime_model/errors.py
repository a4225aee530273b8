"""What can go wrong here, as one tree.

Every message says what was found, what was expected and the cure.

AnytimeModelError
├── ConfigError            a network that cannot be built as described
├── ImageError             an input tensor or image file that cannot be run
├── FinishedError          an exit was asked for after the last one
├── CheckpointError        a weights file or manifest that cannot be used
├── DataError              a data set that is not laid out as its loader expects
├── BuildError             (in kernels/build) kernels that cannot be compiled
├── KernelError            (in kernels/library) kernels that cannot be used or refused something
└── TrainingStoppedError   (in training/stopping) a training that ended early and can resume
"""

from pathlib import Path


class AnytimeModelError(Exception):
    """Root of all errors that this package raises on purpose."""


class ConfigError(AnytimeModelError):
    """A network, criterion or recipe was described with values that do not fit together."""


class ImageError(AnytimeModelError):
    """An input does not have the shape, type or size that the network takes."""


class FinishedError(AnytimeModelError):
    """`advance` was called on a state that has already made its last exit."""


class CheckpointError(AnytimeModelError):
    """A weights file or its manifest entry is wrong, truncated, foreign or missing.

    Attributes:
        path: the file at fault.
        keys: the entries at fault; empty where the whole file is.
    """

    def __init__(
        self, path: Path | str, problem: str, cure: str, keys: tuple[str, ...] = ()
    ) -> None:
        self.path = Path(path)
        self.keys = keys
        super().__init__(f"{path}: {problem} {cure}")


class DataError(AnytimeModelError):
    """A data set's folder or file is missing or malformed.

    Attributes:
        path: the folder or file at fault.
    """

    def __init__(self, path: Path | str, problem: str, cure: str) -> None:
        self.path = Path(path)
        super().__init__(f"{path}: {problem} {cure}")
