"""`anytime-server`: the command line.

For `serve` and `ray` every field of their settings is a flag, and what is not given comes from the
environment; `simulate` describes its traffic by flags.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from anytime_server import logs, tracing
from anytime_server.app import create_app
from anytime_server.engine.local import LocalEngine
from anytime_server.executor.process import process_executors
from anytime_server.metrics import Metrics
from anytime_server.ray_serve.command import serve_on_ray
from anytime_server.ray_serve.settings import RaySettings
from anytime_server.serving import Server, uvicorn_config
from anytime_server.settings import Settings
from anytime_server.simulation.command import simulate_traffic

AnySettings = TypeVar("AnySettings", bound=Settings)

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
    """Serve the models until SIGTERM or Ctrl-C; what runs gets what it has.

    Each option can also be set by the environment variable beside it.
    """
    logs.configure(settings.log_level, as_json=settings.log_json)
    metrics, traces = Metrics(), tracing.from_environment()
    engine = LocalEngine(process_executors(settings), metrics, settings)
    application = create_app(settings, engine, metrics, traces)
    server = Server(uvicorn_config(application, settings), application.state.api)
    server.run()
    if traces is not None:
        traces.close()
    if server.failure is not None:
        typer.echo(f"anytime-server: {server.failure}", err=True)
        raise typer.Exit(1)


def with_flags(
    command: Callable[[AnySettings], None], kind: type[AnySettings]
) -> Callable[..., None]:
    """A command whose options are the fields of its settings."""

    def run(**given: Any) -> None:
        chosen = {name: value for name, value in given.items() if value is not None}
        try:
            settings = kind(**chosen)
        except ValidationError as error:
            for fault in error.errors():
                place = "".join(f"{part}: " for part in fault["loc"])
                typer.echo(f"anytime-server: {place}{fault['msg']}", err=True)
            raise typer.Exit(2) from error
        command(settings)

    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_flag(name, field) for name, field in kind.model_fields.items()]
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


app.command("serve")(with_flags(serve, Settings))


app.command("ray")(with_flags(serve_on_ray, RaySettings))


app.command("simulate")(simulate_traffic)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
