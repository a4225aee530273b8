"""`anytime-server`: the command line.

Decides how settings are given by hand: for `serve` every field of `Settings` is a flag, and what is
not given comes from the environment; `simulate` describes its traffic by flags. Does nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from anytime_server import logs
from anytime_server.app import create_app
from anytime_server.core.costs import ModelProfile, SizeProfile, StageCost
from anytime_server.core.policy import (
    EarliestDeadline,
    Fifo,
    Policy,
    QualityPerSecond,
    SlackFit,
    Static,
)
from anytime_server.errors import ServerError, SettingsError
from anytime_server.executor.commands import WorkerSettings
from anytime_server.executor.process import ProcessExecutor
from anytime_server.serving import Server, uvicorn_config
from anytime_server.settings import Settings
from anytime_server.simulation.simulate import SimulationConfig, full_depth_hz, simulate, table
from anytime_server.simulation.traffic import Arrivals, Bursty, Machine, Poisson, Replay, Traffic

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Anytime dense prediction: a map at every exit, within a budget that may change.",
)


@app.callback()
def root() -> None:
    """Anytime dense prediction: a map at every exit, within a budget that may change."""


def serve(settings: Settings) -> None:
    """Serve the models until SIGTERM or Ctrl-C; running requests get what they have.

    Each option can also be set by the environment variable beside it.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    executor = ProcessExecutor(
        WorkerSettings(
            weights=settings.weights,
            models=settings.model_names,
            engine=settings.engine,
            device=settings.device,
            threads=settings.threads,
            profile_size=settings.profile_height_width,
        ),
        max_pixels=settings.max_pixels,
        hang_s=settings.hang_s,
    )
    application = create_app(settings, executor)
    server = Server(uvicorn_config(application, settings), application.state.service)
    server.run()
    if server.failure is not None:
        typer.echo(f"anytime-server: {server.failure}", err=True)
        raise typer.Exit(1)


def with_flags(command: Callable[[Settings], None]) -> Callable[..., None]:
    """A command whose options are the fields of `Settings`."""

    def run(**given: Any) -> None:
        chosen = {name: value for name, value in given.items() if value is not None}
        try:
            settings = Settings(**chosen)
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in fault["loc"])
                typer.echo(f"anytime-server: {place}: {fault['msg']}", err=True)
            raise typer.Exit(2) from error
        command(settings)

    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_flag(name, field) for name, field in Settings.model_fields.items()]
    )
    run.__annotations__ = {}
    return run


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    annotation: Any = field.annotation
    kind: Any = annotation if annotation in {bool, int, float} else str
    default = (
        "" if field.default in {None, PydanticUndefined, ""} else f" [default: {field.default}]"
    )
    text = f"{field.description} ({default}ANYTIME_{name.upper()})"
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(f"{flag}/--no-{flag[2:]}" if kind is bool else flag, help=text)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


app.command("serve")(with_flags(serve))


@app.command("simulate")
def simulate_traffic(
    load: Annotated[
        float, typer.Option(help="Arrivals, as a multiple of what full depth could serve.", min=0.0)
    ] = 1.5,
    duration_s: Annotated[float, typer.Option(help="Simulated time, in seconds.", min=1.0)] = 600.0,
    replicas: Annotated[int, typer.Option(help="Machines.", min=1)] = 1,
    arrivals: Annotated[
        str, typer.Option(help="poisson, bursty, or a file with one arrival time in s a line.")
    ] = "poisson",
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
    jitter: Annotated[float, typer.Option(help="Deviation of a stage's log time.", min=0.0)] = 0.05,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
) -> None:
    """Compare policies on made-up traffic: the real scheduler, a made-up machine, no waiting."""
    try:
        stages = tuple(StageCost(ms / 1e3, 0.0) for ms in _numbers("stages-ms", stages_ms))
        profile = ModelProfile(
            "simulated", (SizeProfile(360, 480, stages),), _numbers("quality", quality)
        )
        machine = Machine(jitter=jitter)
        rate_hz = load * replicas * full_depth_hz(profile, machine)
        full_s = sum(stage.seconds(1.0) for stage in stages)
        low, high = (factor * full_s for factor in _numbers("deadlines", deadlines, "-"))
        traffic = Traffic(_arrivals(arrivals, rate_hz), (low, high))
        reports = [
            simulate(
                SimulationConfig(
                    profile, traffic, _policy(name), duration_s, replicas, seed, machine
                )
            )
            for name in policies.split(",")
        ]
    except (ServerError, ValueError, OSError) as error:
        typer.echo(f"anytime-server: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(table(reports))


def _numbers(flag: str, text: str, separator: str = ",") -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(separator))
    except ValueError:
        raise SettingsError(flag, repr(text), f"numbers separated by {separator!r}") from None


def _arrivals(text: str, rate_hz: float) -> Arrivals:
    match text:
        case "poisson":
            return Poisson(rate_hz)
        case "bursty":
            return Bursty(rate_hz / 2, rate_hz * 3)
        case _:
            return Replay(tuple(float(line) for line in Path(text).read_text().split()))


def _policy(name: str) -> Policy:
    known: dict[str, Policy] = {
        policy.name: policy
        for policy in (QualityPerSecond(), EarliestDeadline(), SlackFit(), Fifo())
    }
    kind, _, exit_ = name.strip().partition("-")
    if kind == "static" and exit_.isdecimal() and int(exit_) >= 1:
        return Static(int(exit_))
    if name.strip() not in known:
        raise SettingsError("policies", repr(name), f"one of {', '.join(known)}, static-K")
    return known[name.strip()]


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
