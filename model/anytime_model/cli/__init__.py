"""The command `anytime-model`, one module for each subcommand."""

from anytime_model.cli.app import main

__all__ = ["main"]
