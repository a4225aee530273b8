"""The simulation against a real server: `overload.json` is a run of `bench/overload.py`.

The simulated machine takes what the real one was measured to take at each load (stages, the rest of
a run, encoding), and is given the very arrivals. The machine is described in the file.
"""

import json
import random
from pathlib import Path

import pytest

from anytime_server.core.costs import MeasuredPath, ModelProfile, SideCost, SizeProfile
from anytime_server.core.settings import SchedulerSettings
from anytime_server.core.stage_costs import StageCost
from anytime_server.settings import Settings
from anytime_server.simulation.simulate import SimulationConfig, simulate
from anytime_server.simulation.traffic import (
    Bursty,
    Machine,
    Poisson,
    Replay,
    Traffic,
    arrival_times,
)

MEASURED = json.loads(Path(__file__).with_name("overload.json").read_text())
CELLS = [cell for cell in MEASURED["cells"] if cell["contender"] == "ours, http"]
SIDES = (240, 480)
WAYS = ((1, 2, 3, 4, 5, 6, 7, 8), (1, 2, 3, 5, 6, 7, 8), (1, 2, 5, 6, 7, 8), (1, 5, 6, 7, 8))
WAY_QUALITY = (
    (0.4208, 0.4875, 0.5456, 0.5574, 0.5684, 0.5872, 0.6275, 0.6329),
    (0.4208, 0.4875, 0.5456, 0.5576, 0.5786, 0.6246, 0.6316),
    (0.4208, 0.4875, 0.5168, 0.5508, 0.6194, 0.6282),
    (0.4208, 0.4738, 0.5359, 0.6182, 0.6285),
)
"""Of the weights that were served, as their manifest says."""


def arrivals(cell):
    """As `bench/overload.py` draws them."""
    rate_hz = cell["load"] * MEASURED["rate_hz"]
    kind = Poisson(rate_hz)
    if cell["arrivals"] == "bursty":
        kind = Bursty(0.5 * rate_hz, 3.0 * rate_hz, 2.0, 0.5)
    return Replay(tuple(arrival_times(kind, cell["seconds"], random.Random(MEASURED["seed"]))))


def profile(cell):
    """What each stage took at this load; where too few were made, at the lowest."""
    calm = CELLS[0]["costs"]["stages_s"]
    stages = []
    for stage, (seconds, count) in sorted(calm.items(), key=lambda item: int(item[0])):
        here, made = cell["costs"]["stages_s"].get(stage, (seconds, 0))
        stages.append(StageCost(here if made >= 5 and count else seconds, 0.0))
    return ModelProfile(
        "measured",
        (
            SizeProfile(180, 240, tuple(stages[:4])),
            SizeProfile(360, 480, tuple(stages[4:])),
        ),
        quality=tuple(MEASURED["quality"]),
        sides=SIDES,
        paths=tuple(MeasuredPath(w, q) for w, q in zip(WAYS, WAY_QUALITY, strict=True)),
    )


def simulated(cell):
    deadline_s = MEASURED["deadline_ms"] / 1e3
    machine = Machine(
        run_s=cell["costs"]["overhead_s"],  # a wait for decoding is in it
        decode=SideCost(1e-5, 0.0),
        encode=SideCost(cell["costs"]["encode_s"], 0.0),
        network_s=SchedulerSettings(reserve_s=Settings().reserve_s).reserve_s,
    )
    return simulate(
        SimulationConfig(
            profile(cell),
            Traffic(arrivals(cell), (deadline_s, deadline_s), spread=0.0),
            duration_s=cell["seconds"],
            machine=machine,
            settings=Settings().scheduling,
        )
    )


BURSTS = pytest.mark.xfail(
    strict=True,
    reason="simulated to answer 83 and 67 % in time, measured 58 and 51 %: when a burst begins, "
    "the server predicts overheads twice as long as they are on average",
)


def case(cell):
    is_rush = cell["arrivals"] == "bursty" and cell["load"] >= 4
    name = f"{cell['arrivals']} {cell['load']:g}"
    return pytest.param(cell, id=name, marks=[BURSTS] if is_rush else [])


@pytest.mark.parametrize("cell", [case(cell) for cell in CELLS])
def test_the_simulation_predicts_what_one_server_did(cell):
    report = simulated(cell)
    assert report.arrivals == cell["arrived"]
    assert report.attainment == pytest.approx(cell["in_time"], rel=0.10)
    assert report.mean_exit == pytest.approx(cell["mean_exit"], rel=0.10)
    assert report.quality == pytest.approx(cell["quality"], rel=0.10)
