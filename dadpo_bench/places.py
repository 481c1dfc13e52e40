"""Where results lie, relative to where one works, and what is fetched. Light, so that `--help` can name them."""

import os
from pathlib import Path

DEFAULT_STORE = Path("results/local.sqlite3")
"""A user's runs; untracked."""

REFERENCE_STORE = Path("results/reference.sqlite3")
"""The committed reference: the recipe's main contestants over three seeds, with which `check` compares."""

METHODS_STORE = Path("results/methods.sqlite3")
"""Committed beside it: the field's other methods, one seed."""

COMMITTED_STORES = (REFERENCE_STORE, METHODS_STORE)
"""Of which `leaderboard.md` is the board, in this order."""


def cache_dir() -> Path:
    """Where converted models and fetched tasks lie: `$DADPO_BENCH_CACHE`, else the user's cache directory."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("DADPO_BENCH_CACHE")
    return Path(chosen) if chosen else user_cache_path("dadpo-bench")
