"""`anytime-server simulate`: strategies compared on traffic that is described by flags."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final

import typer

from anytime_server.core.costs import ModelProfile, SizeProfile
from anytime_server.core.stage_costs import StageCost
from anytime_server.errors import ServerError, SettingsError
from anytime_server.simulation.changes import Changes
from anytime_server.simulation.policies import strategy
from anytime_server.simulation.report import table
from anytime_server.simulation.routers import router
from anytime_server.simulation.simulate import SimulationConfig, full_depth_hz, simulate
from anytime_server.simulation.traffic import (
    Arrivals,
    Bursty,
    Cameras,
    Machine,
    Poisson,
    Replay,
    Traffic,
    Wave,
)

MOST_REQUESTS: Final = 1e7
MOST_JITTER: Final = 3.0
MOST_RUN_MS: Final = 60_000.0
MOST_UNEVEN: Final = 100.0


def simulate_traffic(
    *,
    load: Annotated[
        float, typer.Option(help="Arrivals, as a multiple of what full depth could serve; above 0.")
    ] = 1.5,
    duration_s: Annotated[float, typer.Option(help="Simulated time, in seconds.", min=1.0)] = 600.0,
    warm_up_s: Annotated[
        float,
        typer.Option(help="Of that time, what is left out of the counts at the start, in s."),
    ] = 0.0,
    replicas: Annotated[
        str, typer.Option(help="Executors, on one machine or several; numbers separated by commas.")
    ] = "1",
    routers: Annotated[
        str,
        typer.Option(
            help="What chooses one of them: ours, predicted-exit, two-choices, least-requests, "
            "round-robin; separated by commas."
        ),
    ] = "ours",
    uneven: Annotated[
        float, typer.Option(help="Every second executor takes so many times as long.")
    ] = 1.0,
    cameras: Annotated[
        int, typer.Option(help="Cameras that send images in turn, instead of `--load`.", min=0)
    ] = 0,
    fps: Annotated[
        float, typer.Option(help="Images a second of each camera.", min=0.001, max=1000.0)
    ] = 5.0,
    arrivals: Annotated[
        str,
        typer.Option(
            help="poisson, bursty, wave (from nothing to twice the load and back, once), or a file "
            "with one arrival time in s a line."
        ),
    ] = "poisson",
    failure_s: Annotated[
        float,
        typer.Option(help="Mean time until an executor fails, in s; 0: never.", min=0.0),
    ] = 0.0,
    start_s: Annotated[
        float, typer.Option(help="Until a new executor takes requests, in s.", min=0.0)
    ] = 15.0,
    most: Annotated[
        int,
        typer.Option(
            help="Most executors, as many as quality and slack want; 0: always `--replicas`, "
            "which is the least otherwise.",
            min=0,
        ),
    ] = 0,
    deadlines: Annotated[
        str,
        typer.Option(help="Shortest-longest deadline, as multiples of the full network's time."),
    ] = "0.5-4",
    stages_ms: Annotated[
        str, typer.Option(help="Time of each stage with everything active, in ms.")
    ] = "30,15,20,35",
    quality: Annotated[
        str, typer.Option(help="Quality of each exit, 0 to 1.")
    ] = "0.47,0.56,0.6,0.62",
    policies: Annotated[
        str, typer.Option(help="ours, edf, slackfit, fifo, static-K; separated by commas.")
    ] = "ours,edf,slackfit,fifo,static-1,static-4",
    jitter: Annotated[float, typer.Option(help="Deviation of a stage's log time.")] = 0.05,
    run_ms: Annotated[
        float, typer.Option(help="What a run takes beside network and decoding, in ms.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
) -> None:
    """Compare policies, routers and numbers of executors in simulated traffic."""
    try:
        _check_range("jitter", jitter, MOST_JITTER)
        _check_range("run-ms", run_ms, MOST_RUN_MS)
        _check_range("uneven", uneven, MOST_UNEVEN)
        qualities = _numbers("quality", quality)
        for value in qualities:
            _check_range("quality", value, 1.0)
        stages = tuple(StageCost(ms / 1e3, 0.0) for ms in _numbers("stages-ms", stages_ms))
        machine = Machine(jitter=jitter, run_s=run_ms / 1e3)
        profile = ModelProfile(
            "simulated", (SizeProfile(360, 480, stages),), qualities, reaction_s=machine.check_s
        )
        full_s = sum(stage.seconds(1.0) for stage in stages)
        low, high = (factor * full_s for factor in _numbers("deadlines", deadlines, "-"))
        changes = Changes(failure_s or math.inf, start_s, most or None)
        reports = []
        for count in map(int, _numbers("replicas", replicas)):
            rate_hz = load * count * full_depth_hz(profile, machine)
            if cameras:
                rate_hz = cameras * fps
            if not 0 < rate_hz * duration_s <= MOST_REQUESTS:
                found = f"{rate_hz * duration_s:.3g} requests in {duration_s:g} s"
                raise SettingsError("load", found, f"above 0, at most {MOST_REQUESTS:.0e}")
            coming = Cameras(cameras, fps) if cameras else _arrivals(arrivals, rate_hz, duration_s)
            reports += [
                simulate(
                    SimulationConfig(
                        profile,
                        Traffic(coming, (low, high)),
                        strategy(policy.strip()),
                        duration_s,
                        warm_up_s,
                        count,
                        router(chosen.strip()),
                        uneven,
                        seed,
                        machine,
                        changes=changes,
                    )
                )
                for policy in policies.split(",")
                for chosen in routers.split(",")
            ]
    except (ServerError, ValueError, OSError) as error:
        typer.echo(f"anytime-server: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(table(reports))


def _check_range(flag: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise SettingsError(flag, f"{value:g}", f"a number from 0 to {most:g}")


def _numbers(flag: str, text: str, separator: str = ",") -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(separator))
    except ValueError:
        raise SettingsError(flag, repr(text), f"numbers separated by {separator!r}") from None


def _arrivals(text: str, rate_hz: float, duration_s: float) -> Arrivals:
    match text:
        case "poisson":
            return Poisson(rate_hz)
        case "bursty":
            return Bursty(rate_hz / 2, rate_hz * 3)
        case "wave":
            return Wave(rate_hz, duration_s)
        case _:
            return Replay(tuple(float(line) for line in Path(text).read_text().split()))
