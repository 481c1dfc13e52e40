"""Ctrl-C in work that can end well: the first asks it to, the second stops it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def finishing(finish: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C within calls `finish`, which ends or raises at once; `KeyboardInterrupt` is raised at the end.

    Elsewhere than in the main thread, or where the program has its own handler, nothing changes.
    """
    plain = signal.getsignal(signal.SIGINT)
    if plain is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handler(_signal: int, _frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, plain)
        finish()

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, plain)
    if asked:
        raise KeyboardInterrupt
