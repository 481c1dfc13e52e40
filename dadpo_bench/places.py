"""Where results lie, relative to where one works. Light, so that `--help` can name them."""

from pathlib import Path

DEFAULT_STORE = Path("results/local.sqlite3")
"""A user's runs; untracked."""

REFERENCE_STORE = Path("results/reference.sqlite3")
"""The committed reference: the recipe's main contestants over three seeds, with which `check` compares."""

METHODS_STORE = Path("results/methods.sqlite3")
"""Committed beside it: the field's other methods, one seed."""

COMMITTED_STORES = (REFERENCE_STORE, METHODS_STORE)
"""Of which `leaderboard.md` is the board, in this order."""
