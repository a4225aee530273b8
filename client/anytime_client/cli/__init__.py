"""The command line `anytime`, one module for each subcommand."""

from anytime_client.cli.app import main

__all__ = ["main"]
