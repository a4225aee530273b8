"""The program `anytime-model` as a user runs it, in this process."""

import sys
from collections.abc import Callable

import pytest

from anytime_model.cli import main

Command = Callable[..., int]
"""Takes the arguments; returns the exit code."""


def command_of(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The program, which takes its arguments as it would from a shell."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["anytime-model", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
