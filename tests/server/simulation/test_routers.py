"""What ways to choose a replica achieve."""

import math
import random
from itertools import pairwise

import pytest

from anytime_server.errors import SettingsError
from anytime_server.simulation.routers import ROUTERS, ours, round_robin, router
from anytime_server.simulation.simulate import SimulationConfig, full_depth_hz, simulate
from anytime_server.simulation.traffic import Cameras, Machine, Poisson, Traffic, arrival_times
from server.core.factories import STAGE_S, profile

FULL_HZ = full_depth_hz(profile())
FULL_S = 1.0 / FULL_HZ


def run(way, load, replicas=4, **changes):
    traffic = Traffic(Poisson(load * replicas * FULL_HZ), (0.5 * FULL_S, 2 * FULL_S))
    config = SimulationConfig(
        profile(), traffic, duration_s=20.0, replicas=replicas, router=way, **changes
    )
    return simulate(config)


@pytest.mark.parametrize("name", list(ROUTERS))
def test_every_router_uses_all_replicas_and_loses_no_request(name):
    report = run(router(name), 1.0)
    ends = sum(report.refused.values()) + report.failed + sum(report.endings.values())
    assert ends == report.arrivals > 100
    assert report.attainment > 0.9
    assert report.router == name


def test_where_half_of_the_replicas_are_slower_their_load_tells():
    by_load, in_turn = (run(way, 1.0, uneven=3.0) for way in (ours, round_robin))
    assert by_load.attainment > in_turn.attainment
    assert by_load.quality > in_turn.quality


@pytest.mark.parametrize("cameras", [7, 20])
def test_as_many_executors_as_the_deployment_guide_says_serve_the_exit_that_it_says(cameras):
    fps, run_s = 5.0, 0.004
    machine = Machine(run_s=run_s)
    traffic = Traffic(Cameras(cameras, fps), (1 / fps, 1 / fps), spread=0.0)

    def served(seconds):
        count = math.ceil(cameras * fps * (seconds + run_s) / 0.85)
        return simulate(
            SimulationConfig(
                profile(reaction_s=machine.check_s),
                traffic,
                duration_s=10.0,
                replicas=count,
                router=ours,
                machine=machine,
            )
        )

    assert served(STAGE_S[0]).attainment >= 0.97
    deepest = served(sum(STAGE_S))
    assert deepest.attainment >= 0.97
    assert deepest.mean_exit >= 0.9 * len(STAGE_S)


def test_an_unknown_router_is_named():
    with pytest.raises(SettingsError, match="two-choices"):
        router("magic")


def test_cameras_keep_their_distance():
    times = list(arrival_times(Cameras(1, 10.0, jitter=0.0), 5.0, random.Random(0)))
    assert len(times) == 50
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps == pytest.approx([0.1] * 49)
