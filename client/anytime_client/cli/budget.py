"""`anytime budget`: reads or sets the server's own budget B(t)."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from anytime_client.cli import options
from anytime_protocol.budget import Budget
from anytime_protocol.codec import load_json
from anytime_protocol.errors import FrameError
from anytime_protocol.resources import ServerBudget


def budget(
    context: typer.Context,
    new: Annotated[
        str | None, typer.Option("--set", help="A whole budget as JSON, a schedule included.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take all limits away.")] = False,
    deadline_ms: options.DeadlineMs = None,
    max_exit: options.MaxExit = None,
    compute_gmacs: options.ComputeGmacs = None,
    min_confidence: options.MinConfidence = None,
    confident_share: options.ConfidentShare = None,
    max_risk: options.MaxRisk = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the server's own budget and load, or set its budget.

    A new budget replaces the old one as a whole. Examples: --max-exit 2,
    --clear,
    --set '{"max_exit": 2, "schedule": [{"at_ms": 60000, "max_exit": 4}]}'.
    """
    limits = options.limits(
        deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share, max_risk
    )
    given = [new is not None, clear, limits != Budget()]
    if sum(given) > 1:
        raise typer.BadParameter("--set, --clear and limits exclude each other")
    wanted = limits if new is None else _parse_budget(new)
    with options.connect(context) as client:
        status = client.set_server_budget(wanted) if any(given) else client.server_budget()
    if as_json:
        options.print_json(status.to_json())
    else:
        console = Console(soft_wrap=True)
        console.print(f"operator's budget: {_format(status.budget)}", highlight=False)
        console.print(f"in force now:      {_format(status.effective)}", highlight=False)
        load = f"{status.in_flight} running, {status.queued} waiting"
        console.print(
            f"load:              {load}, slow-down {status.slowdown:.2f}", highlight=False
        )


def _parse_budget(text: str) -> ServerBudget:
    try:
        return ServerBudget.from_json(load_json(text))
    except FrameError as error:
        raise typer.BadParameter(f"no JSON object ({error})", param_hint="--set") from error


def _format(budget: Budget | ServerBudget) -> str:
    fields = budget.to_json()
    return json.dumps(fields) if fields else "no limits"
