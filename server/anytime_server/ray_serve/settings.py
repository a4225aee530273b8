"""What an operator chooses of a deployment on Ray Serve, beside the settings of each server."""

from __future__ import annotations

import re
from typing import Final, Self

from pydantic import Field, model_validator

from anytime_server.settings import Settings

NAME: Final = "anytime"
"""Of the application, and of its deployment."""

_RANGE: Final = re.compile(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?")


class RaySettings(Settings):
    """The settings of each replica, and how many there are."""

    replicas: str = Field(
        "1",
        pattern=f"^{_RANGE.pattern}$",
        description="Replicas, a number, or LEAST-MOST for as many as quality and slack want.",
    )
    address: str = Field(
        "",
        description="Address of the Ray cluster to join, such as auto; empty starts Ray on this "
        "machine.",
    )

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        least, most = self.replica_range
        if least > most:
            raise ValueError(f"replicas is {self.replicas}; expected the smaller number first")
        return self

    @property
    def replica_range(self) -> tuple[int, int]:
        """The least and the most replicas."""
        least, _, most = self.replicas.partition("-")
        return int(least), int(most or least)

    def threads_each(self, cpus: int) -> int:
        """Compute threads of one replica.

        Args:
            cpus: that all replicas may use together, where there are so many on one machine.
        """
        return self.threads or max(cpus // self.replica_range[1], 1)
