"""Names and colours of a network's outputs: classes, or joints."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """A class or a joint.

    Attributes:
        name: what people read.
        color: "#rrggbb".
    """

    name: str
    color: str
