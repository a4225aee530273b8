"""What can go wrong inside the server, apart from what the wire itself can get wrong.

A refused request and a cancelled one are no errors; they are the values `Rejected` and
`JobFinished` of `core.jobs`.

    ServerError
    |-- UnknownModelError      a job names a model that was never profiled
    |-- DuplicateJobError      a job has the id of one that has not ended
    |-- StageNotRunningError   the executor reports on work that it was not given
    |-- ProfileError           a model's cost profile makes no sense
    |-- SettingsError          a setting or an operator's budget makes no sense
    |-- ImageRejectedError             an image cannot be taken
    |-- RefusedError           a request is not admitted
    |-- ExecutorCrashedError   the executor is gone
    |-- ExecutorCallError      the executor could not do one thing that it was asked
    `-- ExecutorStartError     the executor cannot start
"""

from __future__ import annotations

from collections.abc import Iterable

from anytime_protocol.enums import ErrorCode
from anytime_protocol.http.problems import Problem


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
            f"job {job_id!r} has not ended yet: wait for its end, cancel it, or choose another id"
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
            "report each exit once (exit_made), and the end of each run once (run_ended or fail)"
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


class ImageRejectedError(ServerError):
    """An image cannot be taken.

    Attributes:
        code: `BAD_IMAGE`, `TOO_MANY_PIXELS` or `UNSUPPORTED_MEDIA_TYPE`.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class RefusedError(ServerError):
    """A request is not admitted.

    Attributes:
        problem: what the client is told.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class ExecutorCrashedError(ServerError):
    """The executor is gone, and with it the state of every request that it had begun."""


class ExecutorCallError(ServerError):
    """The executor could not do one thing that it was asked; it goes on with the next.

    Attributes:
        detail: the error's type and text, without a traceback.
        code: what its client is told.
    """

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.INTERNAL) -> None:
        super().__init__(f"the executor failed: {detail}" if code is ErrorCode.INTERNAL else detail)
        self.detail = detail
        self.code = code


class ExecutorStartError(ServerError):
    """The executor cannot start: no weights, or weights that cannot be used."""
