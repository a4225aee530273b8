"""The errors of this package, all below `AnytimeModelError`.

Every message says what was found, what was expected and the cure.

AnytimeModelError
├── FamilyError            an engine that cannot run networks of a family
├── ConfigError            a network, engine, recipe or option that does not exist or fit together
├── InputError             an image or a prior that cannot be run
│   └── NoRoomError        ... beside the images that are under way now
├── FinishedError          a run that is over, or a map before the first exit
├── CheckpointError        a weights file or manifest that cannot be used
├── DataError              a data set that is not laid out as its loader expects
├── BuildError             (in kernels/build) kernels that cannot be compiled
├── KernelError            (in kernels/library) kernels that cannot be used or refused something
└── TrainingStoppedError   (in training/stopping) a training that ended before its last epoch
"""

from pathlib import Path


class AnytimeModelError(Exception):
    """Root of all errors of this package."""


class ConfigError(AnytimeModelError):
    """Values of a network, criterion, engine, recipe or command that are unknown or do not fit."""


class FamilyError(AnytimeModelError):
    """An engine has no way to run networks of this family."""


class InputError(AnytimeModelError):
    """An image, image file or prior that does not have the shape, type or size that can be run."""


class NoRoomError(InputError):
    """An image does not fit into memory beside those that are under way; later it may."""


class FinishedError(AnytimeModelError):
    """`advance` was called after the last exit or a failure, or a map was read before exit 1."""


class CheckpointError(AnytimeModelError):
    """A weights, reference or progress file, or a manifest entry, is wrong or missing.

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
