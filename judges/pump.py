"""Asynchronous work as a plain iterator: an event loop in a thread, ended when the consumer ends.

A thread, not a loop pumped between items: requests go on while the consumer writes to its store, and it
works inside a notebook's running loop too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

_END = object()


def iterate(work: Callable[[Callable[[T], None]], Coroutine[Any, Any, None]]) -> Generator[T, None, None]:
    """Run `work(emit)` and yield what it emits, as it emits it; then raise what it raised, if anything.

    Nothing starts before the first `next`. A consumer that stops early (`close`, an exception,
    Ctrl-C while waiting) cancels the work and returns once its connections are closed.
    """
    arrived: SimpleQueue[Any] = SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(arrived.put))

    def run() -> None:
        with suppress(BaseException):  # what it raises stays in the task, for the consumer to raise
            loop.run_until_complete(task)
        arrived.put(_END)

    thread = Thread(target=run, name="judge", daemon=True)
    thread.start()
    try:
        while (item := arrived.get()) is not _END:
            yield item
        task.result()
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
