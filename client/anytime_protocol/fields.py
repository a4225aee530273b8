"""Fields that several messages have: exits, times and numbers of frames."""

from typing import Annotated, TypeAlias

from anytime_protocol.budget import MAX_MS
from anytime_protocol.errors import FieldError, describe
from anytime_protocol.model_info import MAX_EXITS
from anytime_protocol.validation import number, text, whole

Exit: TypeAlias = Annotated[int, whole(1, MAX_EXITS)]
# A number of exits, or an exit where 0 means none.
Exits: TypeAlias = Annotated[int, whole(0, MAX_EXITS)]

Detail: TypeAlias = Annotated[str, text(2000)]
Duration: TypeAlias = Annotated[float, number(0, MAX_MS)]
FrameNumber: TypeAlias = Annotated[int, whole(1)]
Count: TypeAlias = Annotated[int, whole()]


def check_exit(name: str, exit_: int, exits: int) -> None:
    """Checks that an exit is not beyond the last.

    Raises:
        FieldError: it is.
    """
    if exit_ > exits:
        raise FieldError(name, describe(exit_), f"at most {exits}, the number of exits")
