"""An executor that computes every stage in its base time, and obeys its run's limits."""

from dataclasses import dataclass, field

from anytime_server.core.decisions import Ending, EndJob, JobFinished, RunJob, RunLimits, Wait
from anytime_server.core.scheduler import Scheduler
from server.core.factories import MODEL, report


@dataclass
class FakeExecutor:
    """Computes whatever a scheduler decides, on a clock of its own; nothing new arrives.

    Attributes:
        scheduler: what to obey.
        now: the moment.
        stages: (start, job, stage) of every stage begun.
        endings: each job's end and its moment.
        waits: moments that the scheduler asked to wait for.
        made: the last exit of each job.
    """

    scheduler: Scheduler
    now: float = 0.0
    stages: list[tuple[float, str, int]] = field(default_factory=list)
    endings: dict[str, tuple[float, Ending]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)

    def run_until_idle(self, steps: int = 10_000) -> "FakeExecutor":
        """Goes on until time alone changes nothing any more."""
        for _ in range(steps):
            match self.scheduler.decide(self.now):
                case RunJob() as run:
                    self.compute(run.job_id, run.stage, run.limits)
                case EndJob(ending):
                    self.end(ending)
                case Wait(until_s=None):
                    return self
                case Wait(until_s):
                    assert until_s > self.now
                    self.waits.append(until_s)
                    self.now = until_s
        raise AssertionError(f"not idle after {steps} steps")

    def compute(self, job_id: str, stage: int, limits: RunLimits) -> None:
        """Computes a run from a stage on, reporting each exit when it is made."""
        wasted_s = 0.0
        steps = self.scheduler.costs.steps(MODEL, 64, 64).current()
        made = self.made.get(job_id, 0)
        while stage in limits.path:
            self.stages.append((self.now, job_id, stage))
            took_s, gmacs = steps.step(made, stage, 1.0)
            if self.now + took_s > limits.stop_at_s:
                wasted_s = max(limits.stop_at_s - self.now, 0.0)
                self.now += wasted_s
                break
            self.now += took_s
            made = self.made[job_id] = stage
            exit_report = report(stage, self.now, took_s)._replace(gmacs=gmacs)
            failed = self.scheduler.exit_made(job_id, exit_report)
            if failed is not None:
                self.end(failed)
            limits = self.scheduler.run_limits(self.now)
            stage = min((later for later in limits.path if later > stage), default=0)
        ending = self.scheduler.run_ended(job_id, wasted_s, self.now)
        if ending is not None:
            self.end(ending)

    def end(self, ending: Ending) -> None:
        assert ending.job_id not in self.endings
        self.endings[ending.job_id] = (self.now, ending)

    def stages_of(self, job_id: str) -> list[int]:
        return [stage for _, name, stage in self.stages if name == job_id]

    def finish_of(self, job_id: str) -> JobFinished:
        ending = self.endings[job_id][1]
        assert isinstance(ending, JobFinished)
        return ending


def run_until_idle(scheduler: Scheduler, now: float) -> FakeExecutor:
    return FakeExecutor(scheduler, now).run_until_idle()


def make_exit(scheduler: Scheduler, job_id: str, exit_: int, now: float, **found: float) -> None:
    """Reports an exit of the run under way, which does not end with it."""
    assert scheduler.exit_made(job_id, report(exit_, now, **found)) is None


def end_run(scheduler: Scheduler, job_id: str, exit_: int, now: float, **found: float) -> object:
    """Reports an exit of the run under way, and that the run ended with it."""
    failed = scheduler.exit_made(job_id, report(exit_, now, **found))
    ending = scheduler.run_ended(job_id, 0.0, now)
    assert failed is None or ending is None
    return failed or ending
