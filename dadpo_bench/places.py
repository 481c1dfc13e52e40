"""Where results lie, relative to where one works. Light, so that `--help` can name them."""

from pathlib import Path

DEFAULT_STORE = Path("results/local.sqlite3")
"""A user's runs; untracked."""

REFERENCE_STORE = Path("results/reference.sqlite3")
"""The committed reference; `leaderboard.md` is its board."""
