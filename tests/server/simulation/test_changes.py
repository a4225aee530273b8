"""Replicas that come and go in a simulation."""

from dataclasses import replace

import pytest

from anytime_server.core.costs import ModelProfile, SizeProfile
from anytime_server.core.stage_costs import StageCost
from anytime_server.simulation.changes import Autoscaler, Changes
from anytime_server.simulation.routers import two_choices
from anytime_server.simulation.simulate import SimulationConfig, full_depth_hz, simulate
from anytime_server.simulation.traffic import Poisson, Traffic, Wave

PROFILE = ModelProfile(
    "m",
    (SizeProfile(360, 480, tuple(StageCost(s, 0.0) for s in (0.02, 0.02, 0.03, 0.05))),),
    (0.4, 0.5, 0.6, 0.65),
)
FULL_HZ = full_depth_hz(PROFILE)


def run(arrivals, duration_s, replicas, **changes):
    return simulate(
        SimulationConfig(
            PROFILE,
            Traffic(arrivals, (0.3, 0.3)),
            duration_s=duration_s,
            replicas=replicas,
            router=two_choices,
            changes=Changes(**changes),
        )
    )


def test_a_failure_costs_what_the_replica_had_and_no_more():
    report = run(Poisson(4 * FULL_HZ), 20.0, 5, failure_s=10.0, start_s=1.0)
    assert report.died >= 4
    outcomes = report.failed + report.late + sum(report.exits) + sum(report.refused.values())
    assert outcomes == report.arrivals
    assert 0 < report.failed <= 4 * report.died  # a few each
    assert report.attainment > 0.95


def test_without_changes_replicas_stay():
    report = run(Poisson(FULL_HZ), 5.0, 2)
    assert report.died == 0
    assert report.replica_s == pytest.approx(10.0, rel=0.1)


def test_when_all_have_failed_requests_are_refused_until_another_is_there():
    report = run(Poisson(FULL_HZ), 10.0, 1, failure_s=2.0, start_s=2.0)
    assert report.refused["not-ready"] > 0
    assert report.attainment > 0.3


@pytest.mark.slow
def test_their_number_follows_a_wave_and_costs_less_than_its_height():
    wave = Wave(4 * FULL_HZ, 120.0)
    delays = {"more_after_s": 5.0, "fewer_after_s": 5.0}
    follows = run(wave, 120.0, 1, most=12, start_s=3.0, **delays)
    fixed = run(wave, 120.0, 8)
    assert follows.attainment > 0.97
    assert follows.replica_s < 0.75 * fixed.replica_s
    assert follows.cost_s < 0.8 * fixed.cost_s


@pytest.mark.slow
def test_a_late_start_costs_quality():
    wave = Wave(4 * FULL_HZ, 60.0)
    delays = {"more_after_s": 3.0, "fewer_after_s": 5.0, "most": 12}
    soon, late = (run(wave, 60.0, 1, start_s=lag_s, **delays) for lag_s in (0.5, 20.0))
    assert soon.quality > late.quality


class TestAutoscaler:
    CHANGES = Changes(most=8, more_after_s=5.0, fewer_after_s=20.0)

    @pytest.fixture
    def autoscaler(self):
        return Autoscaler(self.CHANGES, 1)

    def targets(self, autoscaler, seconds, count, quality=None):
        found = []
        for now in range(seconds):
            if quality is not None:
                autoscaler.answered(now, quality, 0.0)
                autoscaler.computed(now, 0.9 * count)
            found.append(autoscaler.target(now, count, count))
        return found

    def test_poor_answers_add_replicas_after_a_while(self, autoscaler):
        assert self.targets(autoscaler, 6, 2, quality=0.5) == [2, 2, 2, 2, 2, 4]

    def test_idle_replicas_go_after_a_longer_while(self, autoscaler):
        found = self.targets(autoscaler, 21, 3)
        assert found == [3] * 20 + [2]

    def test_bounds_hold(self, autoscaler):
        assert max(self.targets(autoscaler, 6, 7, quality=0.1)) == 8
        assert min(self.targets(Autoscaler(self.CHANGES, 3), 30, 3)) == 3

    def test_what_is_long_ago_is_forgotten(self, autoscaler):
        for now in range(4):
            autoscaler.answered(now, 0.1, 0.0)
        assert autoscaler.target(20.0, 2, 2) == 2
        assert autoscaler.target(41.0, 2, 2) == 1

    def test_a_fixed_number_has_no_autoscaler(self):
        fixed = Autoscaler(replace(self.CHANGES, most=None), 2)
        assert self.targets(fixed, 6, 2, quality=0.1) == [2] * 6
