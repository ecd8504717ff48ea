"""The command line: arguments in; tables, files and exit codes out; no logic."""

from simulator.cli._entry import main

__all__ = ["main"]
