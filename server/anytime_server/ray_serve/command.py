"""`anytime-server ray`: the server on Ray Serve, on this machine or in a cluster."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Final

import typer

from anytime_server.ray_serve.proxy import CALLBACK

if TYPE_CHECKING:  # it only passes them on
    from anytime_server.ray_serve.settings import RaySettings

ENVIRONMENT: Final = {
    **CALLBACK,
    # Our code never blocks its event loop, so that it needs no thread of its own beside Ray's.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    # Answers come by gRPC and not as Ray's objects; a map may have more bytes than the default.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Of Ray's processes on this machine, unless the environment says otherwise."""


def serve_on_ray(settings: RaySettings) -> None:
    """Serve by replicas on Ray Serve until a signal; needs the extra `ray`.

    Each option can also be set by the environment variable beside it. Settings
    hold for each replica, and `--threads 0` divides this machine's cores between
    them.
    """
    if importlib.util.find_spec("ray") is None:
        typer.echo(
            "anytime-server: Ray is not installed: pip install 'anytime-dense[ray]'", err=True
        )
        raise typer.Exit(1)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # read when Ray is imported
    cluster, deployment = (
        importlib.import_module(f"anytime_server.ray_serve.{name}")
        for name in ("cluster", "deployment")
    )
    cluster.serve_until_signal(settings, deployment.application)
