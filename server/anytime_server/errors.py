"""What can go wrong inside the server, apart from what the wire itself can get wrong.

Decides which faults exist and what each must say: what was found, what was expected, the cure.
Refuses to know how a fault is told to a client. A refused request and a cancelled one are no
faults; they are the values `Rejected` and `Final` of `jobs`.

    ServerError
    |-- UnknownModelError      a job names a model that was never profiled
    |-- DuplicateJobError      a job has the id of one that is still alive
    |-- StageNotRunningError   the executor reports on work that it was not given
    |-- ProfileError           a model's cost profile makes no sense
    `-- SettingsError          a setting or an operator's budget makes no sense
"""

from __future__ import annotations

from collections.abc import Iterable


class ServerError(Exception):
    """Root of all errors of this package."""


class UnknownModelError(ServerError):
    """A job names a model that this server does not serve.

    Attributes:
        model: the name that was found.
        known: the names that would do.
    """

    def __init__(self, model: str, known: Iterable[str]) -> None:
        self.model = model
        self.known = tuple(sorted(known))
        names = ", ".join(self.known) or "none at all"
        super().__init__(f"unknown model {model!r}: this server serves {names}")


class DuplicateJobError(ServerError):
    """A job has the id of a job that has not ended yet.

    Attributes:
        job_id: the id.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"job {job_id!r} is still alive: wait for its end, cancel it, or choose another id"
        )


class StageNotRunningError(ServerError):
    """The executor reports the end of a stage that the scheduler did not start.

    Attributes:
        job_id: the job that was reported.
        stage: the stage that was reported.
    """

    def __init__(self, job_id: str, stage: int, running: str) -> None:
        self.job_id = job_id
        self.stage = stage
        super().__init__(
            f"stage {stage} of job {job_id!r} is not running ({running}): "
            "report each stage of a Run exactly once, by complete, go_on, abandon or fail"
        )


class ProfileError(ServerError):
    """A cost profile has the wrong shape or an impossible number.

    Attributes:
        model: the model whose profile it is.
    """

    def __init__(self, model: str, message: str) -> None:
        self.model = model
        super().__init__(f"cost profile of model {model!r}: {message}")


class SettingsError(ServerError):
    """A setting is out of its range.

    Attributes:
        field: its name.
        found: what was there.
        expected: what may be there.
    """

    def __init__(self, field: str, found: str, expected: str) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field}: found {found}, expected {expected}")
