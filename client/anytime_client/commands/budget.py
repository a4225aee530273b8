"""`anytime budget`: reads or sets the server's own budget B(t)."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from anytime_client.commands import options
from anytime_client.results import ServerBudget
from anytime_protocol.budget import Budget
from anytime_protocol.codec import load_json
from anytime_protocol.errors import FrameError


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
    as_json: options.AsJson = False,
) -> None:
    """Show the server's own budget and load, or set its budget.

    A new budget replaces the old one as a whole. Examples: --max-exit 2, --clear,
    --set '{"max_exit": 2, "schedule": [{"at_ms": 60000, "max_exit": 4}]}'.
    """
    wanted = options.limits(deadline_ms, max_exit, compute_gmacs, min_confidence, confident_share)
    given = [new is not None, clear, wanted != Budget()]
    if sum(given) > 1:
        raise typer.BadParameter("--set, --clear and limits exclude each other")
    if new is not None:
        wanted = _read(new)
    with options.connection(context).open() as client:
        if any(given):
            client.set_server_budget(wanted)
        state = client.server_budget()
    if as_json:
        options.say(_describe(state))
    else:
        console = Console(soft_wrap=True)
        console.print(f"operator's budget: {_words(state.budget)}", highlight=False)
        console.print(f"in force now:      {_words(state.effective)}", highlight=False)
        load = f"{state.in_flight} running, {state.queued} waiting, slow-down {state.slowdown:.2f}"
        console.print(f"load:              {load}", highlight=False)


def _read(text: str) -> Budget:
    try:
        return Budget.from_json(load_json(text))
    except FrameError as error:
        raise typer.BadParameter(f"no JSON object ({error})", param_hint="--set") from error


def _describe(state: ServerBudget) -> dict[str, object]:
    return {
        "budget": state.budget.to_json(),
        "effective": state.effective.to_json(),
        "in_flight": state.in_flight,
        "queued": state.queued,
        "slowdown": state.slowdown,
    }


def _words(value: Budget) -> str:
    return json.dumps(value.to_json()) if value != Budget() else "no limits"
