"""The command line: one file a group of commands. Importing it imports no torch."""

from dadpo_bench.cli.app import app, main

__all__ = ["app", "main"]
