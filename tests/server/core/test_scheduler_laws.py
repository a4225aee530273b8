"""What holds for the scheduler whatever happens in whatever order."""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from anytime_protocol.budget import LIMITS, Budget, tightest
from anytime_protocol.enums import Effect, ErrorCode, Reason
from anytime_protocol.resources import LoadCap, ServerBudget
from anytime_server.core.decisions import (
    STOP,
    Admitted,
    EndJob,
    ExitReport,
    JobFailed,
    JobFinished,
    RunJob,
    RunLimits,
    Wait,
)
from anytime_server.core.jobs import JobState
from anytime_server.core.policy import QualityPerSecond
from anytime_server.simulation.policies import EarliestDeadline, Fifo, SlackFit
from server.core.factories import (
    MODEL,
    job,
    ladder_profile,
    profile,
    scheduler,
    server_budget,
    skipping_profile,
)
from server.core.fakes import run_until_idle

TOLERANCE_S = 1e-9
EARLY_MS = 1e-3
"""An entry of a schedule may take effect so much before its moment."""


def rarely(limit):
    """No limit in three of four cases, so that most requests get somewhere."""
    return st.one_of(st.none(), st.none(), st.none(), limit)


LIMIT_VALUES = {
    "deadline_ms": rarely(st.floats(5, 600)),
    "compute_gmacs": rarely(st.floats(0.5, 16)),
    "max_exit": rarely(st.integers(1, 5)),
    "min_confidence": rarely(st.floats(0.5, 1.0)),
}
FIXED = st.builds(Budget, **LIMIT_VALUES)
SCHEDULES = st.just(()) | st.lists(
    st.tuples(st.floats(0, 400), FIXED), max_size=2, unique_by=lambda entry: entry[0]
).map(lambda entries: tuple(sorted(entries, key=lambda entry: entry[0])))
BUDGETS = st.builds(Budget, **LIMIT_VALUES, schedule=SCHEDULES)
LOAD_CAPS = st.builds(LoadCap, st.floats(0.2, 1.0), st.floats(0.0, 0.1), st.integers(1, 4))
SERVER_BUDGETS = st.builds(
    server_budget,
    **LIMIT_VALUES,
    schedule=SCHEDULES,
    load_caps=st.lists(LOAD_CAPS, max_size=2).map(tuple),
    floors=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4)), max_size=1).map(tuple),
)
SHARES = st.floats(0.0, 1.0)
FACTORS = st.floats(0.6, 2.0)


@dataclass
class ExecutorRun:
    """A run as the executor sees it: it knows the limits last written, and nothing else.

    Attributes:
        job_id: the job.
        stage: the stage that it computes.
        limits: as last written.
        reports: exits that nobody has read.
        wasted_s: time lost on a stage that was stopped; None if none was.
        is_over: nothing more will be computed.
    """

    job_id: str
    stage: int
    limits: RunLimits
    reports: list[ExitReport] = field(default_factory=list)
    wasted_s: float | None = None
    is_over: bool = False


class SchedulerMachine(RuleBasedStateMachine):
    """Requests, budget changes, cancels, exits, stops and drains, in any order.

    Exits are read and limits are written at moments of their own, so that the scheduler may know
    less than the executor has done, and the executor less than the scheduler wants.
    """

    profile = profile()

    def __init__(self) -> None:
        super().__init__()
        self.s = scheduler(profile=self.profile)
        self.steps = self.s.costs.steps(MODEL, 64, 64)
        self.now = 0.0
        self.jobs: dict[str, JobState] = {}
        self.budgets: dict[str, Budget] = {}
        self.revs: dict[str, int] = {}
        self.exits: dict[str, tuple[int, ...]] = {}
        self.confidence: dict[str, float] = {}
        self.ended: dict[str, object] = {}
        self.cancelled: set[str] = set()
        self.run: ExecutorRun | None = None
        self.server = ServerBudget()
        self.server_set_s = 0.0
        self.draining = False
        self.count = 0

    def active(self):
        return [name for name in self.jobs if name not in self.ended]

    def take(self, ending):
        if ending is None:
            return
        name = ending.job_id
        assert name in self.jobs
        assert name not in self.ended
        if isinstance(ending, JobFinished):
            assert ending.exit == self.last_exit(name)
            assert (ending.reason is Reason.CANCELLED) == (name in self.cancelled)
            assert ending.exit >= 1 or ending.reason is Reason.CANCELLED
        else:
            assert not self.exits[name]
        self.ended[name] = ending

    def limits_now(self, name):
        """The tightest of client's and operator's limits, load caps aside, worked out anew."""
        elapsed_ms = (self.now - self.jobs[name].arrival_s) * 1e3 + EARLY_MS
        server_ms = (self.now - self.server_set_s) * 1e3 + EARLY_MS
        limits = {limit: getattr(self.server.limits, limit) for limit in LIMITS}
        server = Budget(**limits, schedule=self.server.schedule)
        return tightest(self.budgets[name].at(elapsed_ms), server.at(server_ms))

    def deadline_s(self, name):
        deadline_ms = self.limits_now(name).deadline_ms
        return math.inf if deadline_ms is None else self.jobs[name].arrival_s + deadline_ms / 1e3

    def last_exit(self, name):
        return self.exits[name][-1] if self.exits[name] else 0

    def check_depth(self, name, path):
        """No limit forbids going on along a path, which leads on from where the request is."""
        limits = self.limits_now(name)
        made = (*self.exits[name], *path)
        assert any(way.exits[: len(made)] == made for way in self.profile.ways)
        if made[-1] > 1:
            assert limits.max_exit is None or made[-1] <= limits.max_exit
            steps = pairwise((0, *made))
            gmacs = sum(self.steps.step(before, exit_, 1.0)[1] for before, exit_ in steps)
            assert limits.compute_gmacs is None or gmacs <= limits.compute_gmacs + 1e-6
            confidence = self.confidence.get(name, 0.0)
            assert limits.min_confidence is None or confidence < limits.min_confidence

    def check_limits(self, limits):
        """The scheduler allows its run no more than the budgets do."""
        name = self.run.job_id
        assert limits.stop_at_s <= self.deadline_s(name) + TOLERANCE_S
        self.check_depth(name, limits.path)
        if len(limits.path) > 1:
            assert len(self.active()) == 1
            assert not self.draining
            assert limits.last_stage <= self.s.server_limits.load_cap(self.jobs[name].urgency)

    # Requests.

    @initialize(limits=st.lists(FIXED, min_size=1, max_size=2))
    def begin(self, limits):
        for budget in limits:
            self.submit(budget, 3, 0.0, turn=False)
        self.engine_turn()

    @rule(budget=BUDGETS, urgency=st.integers(0, 7), age_s=st.floats(0, 0.02), turn=st.booleans())
    def submit(self, budget, urgency, age_s, turn):
        name = f"j{self.count}"
        self.count += 1
        state = JobState(name, MODEL, 64, 64, self.now - age_s, budget, urgency)
        admission = self.s.submit(state, self.now)
        if isinstance(admission, Admitted):
            assert not self.draining
            assert 1 <= admission.exit <= self.profile.exits
            self.jobs[name], self.budgets[name] = state, budget
            self.exits[name], self.revs[name] = (), 0
        else:
            assert admission.retry_after_s is None or admission.retry_after_s >= 0
        if turn:
            self.engine_turn()

    @precondition(active)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(self.active()))
        self.cancelled.add(name)
        self.take(self.s.cancel(name))
        assert name in self.ended or self.run.job_id == name

    @precondition(active)
    @rule(data=st.data(), budget=BUDGETS, step=st.integers(0, 2))
    def change_budget(self, data, budget, step):
        name = data.draw(st.sampled_from(self.active()))
        rev = self.revs[name] + step
        change = self.s.update_budget(name, budget, rev)
        if name in self.cancelled:
            assert change.effect is Effect.GONE
        elif step == 0:
            assert change == (Effect.STALE, self.last_exit(name))
        else:
            assert change == (Effect.APPLIED, self.last_exit(name))
            self.budgets[name], self.revs[name] = budget, rev

    @rule(budget=SERVER_BUDGETS)
    def change_server_budget(self, budget):
        self.server, self.server_set_s = budget, self.now
        self.s.set_server_budget(budget, self.now)

    @precondition(active)
    @rule(data=st.data())
    def fail(self, data):
        name = data.draw(st.sampled_from(self.active()))
        if self.run is not None and self.run.job_id == name:
            self.run = None
        failed = self.s.fail(name, ErrorCode.INTERNAL, "the test wants it")
        assert isinstance(failed, JobFailed)
        self.ended[name] = failed

    @precondition(lambda self: self.run is not None)
    @rule()
    def drain(self):
        self.draining = True
        for ending in self.s.drain():
            self.take(ending)

    # The executor.

    @rule(wait_s=st.floats(0.0, 0.02) | st.floats(0.0, 0.2))
    def time_passes(self, wait_s):
        self.now += wait_s

    @precondition(lambda self: self.run is not None and not self.run.is_over)
    @rule(share=SHARES, confidence=SHARES, factor=FACTORS, turn=st.booleans())
    def stage_ends(self, share, confidence, factor, turn):
        run = self.run
        made = run.reports[-1].exit if run.reports else self.last_exit(run.job_id)
        base_s, gmacs = self.steps.current().step(made, run.stage, 1.0)
        took_s = base_s * factor
        self.now += took_s
        run.reports.append(
            ExitReport(run.stage, confidence, share, confidence / 2, gmacs, took_s, self.now)
        )
        following = [later for later in run.limits.path if later > run.stage]
        run.is_over = not following
        if following:
            run.stage = following[0]
        if turn:
            self.engine_turn()

    @precondition(lambda self: self.run is not None and not self.run.is_over)
    @rule(spent_s=st.floats(0.0, 0.02))
    def stage_is_stopped(self, spent_s):
        run = self.run
        if run.stage not in run.limits.path or self.now >= run.limits.stop_at_s:
            self.now += spent_s
            run.wasted_s, run.is_over = spent_s, True

    # What the engine does.

    @precondition(lambda self: self.run is not None)
    @rule()
    def read_exits(self):
        name = self.run.job_id
        for found in self.run.reports:
            counts = name not in self.cancelled and name not in self.ended
            failed = self.s.exit_made(name, found)
            self.take(failed)
            if counts and failed is None:
                self.exits[name] = (*self.exits[name], found.exit)
                self.confidence[name] = found.confidence
        self.run.reports.clear()

    @precondition(lambda self: self.run is not None and self.run.is_over)
    @rule()
    def read_end_of_run(self):
        self.read_exits()
        run, self.run = self.run, None
        self.take(self.s.run_ended(run.job_id, run.wasted_s or 0.0, self.now))

    @rule()
    def write_limits(self):
        limits = self.s.run_limits(self.now)
        assert self.s.run_limits(self.now) == limits
        if self.run is None:
            assert limits == STOP
            return
        if limits != STOP:
            assert self.run.job_id not in self.cancelled
            assert self.run.job_id not in self.ended
            self.check_limits(limits)
            told = self.run.reports or self.run.wasted_s is not None  # or about to be
            assert told or not self.run.is_over
        self.run.limits = limits

    @rule()
    def decide(self):
        match self.s.decide(self.now):
            case RunJob() as run:
                assert self.run is None
                self.run = ExecutorRun(run.job_id, run.stage, run.limits)
                self.check_start(run)
            case EndJob(ending):
                self.take(ending)
            case Wait(until_s):
                assert until_s is None or until_s > self.now
                assert until_s is not None or self.run is not None or not self.active()

    @rule()
    def engine_turn(self):
        """All that an engine does after an event, as long as there is something to do."""
        if self.run is not None:
            self.read_exits()
            if self.run.is_over:
                self.read_end_of_run()
        self.decide()
        self.write_limits()

    def check_start(self, run):
        name = run.job_id
        assert name in self.active()
        assert name not in self.cancelled
        assert run.stage == run.limits.path[0]
        assert run.limits.stop_at_s > self.now
        alone = run.stage == 1 and len(self.active()) == 1
        least_s = 0.0 if alone else run.predicted_s
        assert self.now + least_s <= self.deadline_s(name) + TOLERANCE_S
        self.check_depth(name, (run.stage,))
        self.check_limits(run.limits)

    @invariant()
    def those_that_have_not_ended_are_the_schedulers_jobs(self):
        assert set(self.s._jobs) == set(self.active())

    def teardown(self):
        """From any state, every request ends."""
        if self.run is not None:
            self.run.is_over = True
            self.read_end_of_run()
        for _, ending in run_until_idle(self.s, self.now).endings.values():
            name = ending.job_id
            assert name not in self.ended
            assert name not in self.cancelled
            self.ended[name] = ending
        assert not self.active()


class LadderMachine(SchedulerMachine):
    """The same for a model with a ladder, whose exits may be made along several ways."""

    profile = ladder_profile()


class SkippingMachine(SchedulerMachine):
    """The same where exits may be left out, so that a step may be as long as several stages."""

    profile = skipping_profile()


TestLaws = SchedulerMachine.TestCase
TestLadderLaws = LadderMachine.TestCase
TestSkippingLaws = SkippingMachine.TestCase
for laws in (TestLaws, TestLadderLaws, TestSkippingLaws):
    laws.settings = hypothesis_settings(
        max_examples=150, stateful_step_count=40, deadline=None, print_blob=False
    )


@pytest.mark.parametrize("policy", [Fifo(), EarliestDeadline(), SlackFit(), QualityPerSecond()])
def test_every_policy_ends_every_request(policy):
    s = scheduler(policy)
    jobs = [job(f"j{n}", deadline_ms=100 + 20 * n) for n in range(20)]
    admitted = [j.id for j in jobs if isinstance(s.submit(j, 0.0), Admitted)]
    assert len(admitted) > 10
    assert sorted(run_until_idle(s, 0.0).endings) == sorted(admitted)
