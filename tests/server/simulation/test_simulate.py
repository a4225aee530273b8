"""What the scheduler achieves in traffic: deterministic experiments on a simulated machine."""

import math
import time

import pytest

from anytime_protocol.resources import LoadCap
from anytime_server.core.costs import MeasuredPath, ModelProfile, SizeProfile
from anytime_server.core.settings import SchedulerSettings
from anytime_server.core.stage_costs import StageCost
from anytime_server.errors import SettingsError
from anytime_server.simulation.policies import EDF, FIFO, OURS, SLACKFIT, static
from anytime_server.simulation.simulate import SimulationConfig, full_depth_hz, simulate
from anytime_server.simulation.traffic import Bursty, Machine, Poisson, Replay, Traffic
from server.core.factories import ladder_profile, server_budget, skipping_profile

# Shaped like a wide network: a first exit of 9 % of the whole, masks that shrink as in street
# scenes.
WIDE = ModelProfile(
    "wide",
    (
        SizeProfile(
            512,
            1024,
            (
                StageCost(0.040, 0.0),
                StageCost(0.010, 0.050),
                StageCost(0.020, 0.230),
                StageCost(0.020, 0.310),
            ),
        ),
    ),
    quality=(44.3, 60.1, 76.8, 81.3),
    typical_share=(1.0, 0.8, 0.6, 0.4),
)
FULL_HZ = full_depth_hz(WIDE)
FULL_S = 1.0 / FULL_HZ


def traffic(times: float, **changes: object) -> Traffic:
    values = {"arrivals": Poisson(times * FULL_HZ), "deadline_s": (FULL_S, 3 * FULL_S)} | changes
    return Traffic(**values)


@pytest.mark.parametrize("deadline_s", [(0.005, 0.2), (0.2, 0.8)])
@pytest.mark.parametrize("times", [0.1, 0.6, 1.5])
@pytest.mark.slow
def test_exits_that_may_be_left_out_make_answers_better(times, deadline_s):
    hz = times * full_depth_hz(ladder_profile())
    stepwise, any_way = (
        simulate(
            SimulationConfig(
                skipping_profile(paths=paths),
                Traffic(Poisson(hz), deadline_s),
                duration_s=500 / hz,
            )
        )
        for paths in (ladder_profile().paths, skipping_profile().paths)
    )
    answered = [report.quality / report.attainment for report in (stepwise, any_way)]
    assert answered[1] >= answered[0] - 0.1
    # A far exit that is made at once keeps others waiting for longer than a stage would.
    assert any_way.attainment >= stepwise.attainment - 0.03


@pytest.mark.slow
def test_at_twice_the_capacity_every_admitted_request_gets_a_map_in_time_with_ours_not_with_fifo():
    ours = simulate(SimulationConfig(WIDE, traffic(2.0), duration_s=150))
    assert (ours.failed, ours.late) == (0, 0)
    assert ours.attainment > 0.999
    assert 1.5 < sum(k * n for k, n in enumerate(ours.exits, 1)) / sum(ours.exits) < 3.5
    fifo = simulate(SimulationConfig(WIDE, traffic(2.0), strategy=FIFO, duration_s=60))
    assert fifo.attainment < 0.5
    assert fifo.late > 0


@pytest.mark.parametrize("times", [1.0, 2.0])
@pytest.mark.slow
def test_ours_serves_better_quality_over_all_arrivals_than_the_others(times):
    ours, *others = (
        simulate(SimulationConfig(WIDE, traffic(times), strategy=way, duration_s=90))
        for way in (OURS, static(1), static(2), EDF, SLACKFIT)
    )
    for other in others:
        assert ours.quality > other.quality, other.strategy
        assert ours.attainment >= other.attainment, other.strategy


@pytest.mark.parametrize(
    "machine",
    [Machine(), Machine(jitter=0.02, slow_down=1.7), Machine(swing=0.3, network_s=0.004)],
    ids=["calm", "slower than profiled", "swinging"],
)
def test_a_single_client_gets_the_deepest_exit_that_fits_and_gets_it_in_time(machine):
    first_s = 0.040 * machine.slow_down + machine.network_s + 0.020
    full_s = sum(stage.seconds(1.0) for stage in WIDE.sizes[0].stages) * machine.slow_down
    alone = Replay(tuple(4.0 * full_s * n for n in range(400)))
    report = simulate(
        SimulationConfig(
            WIDE,
            Traffic(alone, (first_s, 2.0 * full_s * 0.62)),  # 0.62: what masks leave of it
            duration_s=math.inf,
            machine=machine,
            settings=SchedulerSettings(reserve_s=machine.network_s),
        )
    )
    answers = report.arrivals - sum(report.refused.values())
    assert report.arrivals == 400
    assert sum(report.exits) / answers >= 0.99
    assert report.deepest >= 0.90


@pytest.mark.parametrize("way", [OURS, EDF, FIFO], ids=lambda way: way.name)
def test_every_request_has_exactly_one_outcome(way):
    report = simulate(
        SimulationConfig(
            WIDE,
            traffic(1.5, cancelled=0.2, without_deadline=0.2),
            strategy=way,
            duration_s=60,
            replicas=3,
            machine=Machine(swing=0.5, swing_period_s=20, jitter=0.2),
        )
    )
    ends = sum(report.refused.values()) + report.failed + sum(report.endings.values())
    assert ends == report.arrivals > 100
    assert report.cancelled > 0


def test_requests_without_deadline_end_beside_those_with_one():
    report = simulate(SimulationConfig(WIDE, traffic(1.5, without_deadline=0.3), duration_s=120))
    assert report.endings["complete"] > 0
    assert report.answer_s[2] < 60.0


def test_load_caps_shorten_the_time_to_answer_in_bursts():
    bursts = traffic(1.0, arrivals=Bursty(0.3 * FULL_HZ, 4 * FULL_HZ))
    free = simulate(SimulationConfig(WIDE, bursts, duration_s=150))
    caps = server_budget(load_caps=(LoadCap(1.5, 0.5, 2),))
    capped = simulate(SimulationConfig(WIDE, bursts, duration_s=150, server_budget=caps))
    assert capped.answer_s[1] < free.answer_s[1]
    assert capped.endings["budget"] > 0
    assert capped.attainment >= 0.999


def test_an_operators_cap_is_never_passed():
    caps = server_budget(max_exit=2)
    report = simulate(SimulationConfig(WIDE, traffic(0.5), duration_s=60, server_budget=caps))
    assert report.exits[2:] == (0, 0)


@pytest.mark.slow
def test_more_replicas_serve_more_traffic_equally_well():
    one = simulate(SimulationConfig(WIDE, traffic(1.0), duration_s=60))
    eight = simulate(SimulationConfig(WIDE, traffic(8.0), duration_s=60, replicas=8))
    assert eight.arrivals > 6 * one.arrivals
    assert eight.attainment > 0.999
    assert eight.quality > one.quality - 1.0


def test_the_same_seed_gives_the_same_report_and_another_seed_another():
    config = SimulationConfig(WIDE, traffic(1.0), duration_s=60)
    assert simulate(config) == simulate(config)
    other = SimulationConfig(WIDE, traffic(1.0), duration_s=60, seed=1)
    assert simulate(other) != simulate(config)


def test_all_strategies_are_given_the_same_requests():
    counts = {
        simulate(SimulationConfig(WIDE, traffic(0.5), strategy=way, duration_s=60)).arrivals
        for way in (FIFO, OURS)
    }
    assert len(counts) == 1


def test_an_idle_machine_computes_what_the_profile_says():
    alone = Replay((0.0, 10.0, 20.0))
    quiet = Machine(jitter=0.0)
    report = simulate(
        SimulationConfig(WIDE, Traffic(alone, (5.0, 5.0), spread=0.0), duration_s=30, machine=quiet)
    )
    assert report.exits == (0, 0, 0, 3)
    encode_s = quiet.encode.seconds(512 * 1024)
    assert report.answer_s[0] == pytest.approx(FULL_S + encode_s)
    assert report.quality == pytest.approx(81.3)
    assert (report.wasted, report.deepest) == (0.0, 1.0)


def test_what_a_run_takes_beside_the_network_is_waited_for_and_learnt():
    alone = Replay((0.0, 10.0, 20.0))
    slow = Machine(jitter=0.0, run_s=0.5)
    traffic_alone = Traffic(alone, (5.0, 5.0), spread=0.0)
    report = simulate(SimulationConfig(WIDE, traffic_alone, duration_s=30, machine=slow))
    expected_s = 0.5 + FULL_S + slow.encode.seconds(512 * 1024)
    assert report.answer_s[0] == pytest.approx(expected_s)
    rush = traffic(4.0, deadline_s=(FULL_S, FULL_S))
    known = simulate(SimulationConfig(WIDE, rush, duration_s=60, machine=Machine(run_s=0.010)))
    assert known.late + known.failed <= 0.01 * known.arrivals  # refused in time instead


def test_a_ladder_is_simulated_along_its_measured_ways():
    quality = (40.0, 45.0, 44.0, 60.0)
    small = WIDE.sizes[0].stages[:2]
    ladder = ModelProfile(
        "ladder",
        (SizeProfile(256, 512, small), SizeProfile(512, 1024, tuple(s.scaled(4) for s in small))),
        quality=quality,
        sides=(512, 1024),
        paths=(MeasuredPath((1, 2, 3, 4), quality), MeasuredPath((1, 3, 4), (40.0, 43.0, 59.0))),
    )
    alone = Replay((0.0, 10.0))
    report = simulate(
        SimulationConfig(ladder, Traffic(alone, (5.0, 5.0)), duration_s=20, machine=Machine())
    )
    assert report.exits == (0, 0, 0, 2)
    assert report.deepest == 1.0


@pytest.mark.slow
def test_ten_minutes_of_traffic_take_seconds():
    before = time.process_time()
    report = simulate(SimulationConfig(WIDE, traffic(1.0), duration_s=600))
    assert report.arrivals > 1300
    assert time.process_time() - before < 10.0


def test_requests_of_the_warm_up_are_served_but_not_counted():
    alone = Replay((1.0, 2.0, 11.0))
    config = {"traffic": Traffic(alone, (5.0, 5.0)), "duration_s": 21.0, "machine": Machine()}
    whole, later = (
        simulate(SimulationConfig(WIDE, warm_up_s=warm_up_s, **config)) for warm_up_s in (0.0, 10.0)
    )
    assert (whole.arrivals, later.arrivals) == (3, 1)
    assert (sum(whole.exits), sum(later.exits)) == (3, 1)
    assert later.duration_s == later.replica_s == 11.0
    assert later.busy == pytest.approx(FULL_S / 11.0, rel=0.5)


def test_an_executor_is_never_busier_than_all_the_time():
    report = simulate(SimulationConfig(WIDE, traffic(5.0), duration_s=20, warm_up_s=10))
    assert 0.98 < report.busy <= 1.0


def test_a_simulation_that_makes_no_sense_is_refused():
    with pytest.raises(SettingsError, match="replicas"):
        SimulationConfig(WIDE, traffic(1.0), replicas=0)
    with pytest.raises(SettingsError, match="warm_up_s"):
        SimulationConfig(WIDE, traffic(1.0), duration_s=10, warm_up_s=10)
    with pytest.raises(SettingsError, match=r"traffic\.deadline_s"):
        SimulationConfig(WIDE, traffic(1.0, deadline_s=(2.0, 1.0)))
    unmeasured = ModelProfile("bare", WIDE.sizes)
    with pytest.raises(SettingsError, match="quality"):
        SimulationConfig(unmeasured, traffic(1.0))
