"""Asynchronous work as a plain iterator: an event loop in a thread, ended when the consumer ends.

A thread, not a loop pumped between items: requests go on while the consumer writes to its store, and it
works inside a notebook's running loop too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

Emit = Callable[[T], Awaitable[None]]

_END = object()
BACKLOG = 32
"""Items that may wait for the consumer; then work waits for it, a moment at a time."""


def iterate(work: Callable[[Emit[T]], Coroutine[Any, Any, None]]) -> Generator[T, None, None]:
    """Run `work(emit)` and yield what it emits, as it emits it; then raise what it raised, if anything.

    Nothing starts before the first `next`. A consumer that stops early (`close`, an exception,
    Ctrl-C while waiting) cancels the work and returns once its connections are closed.
    """
    arrived: SimpleQueue[Any] = SimpleQueue()
    loop = asyncio.new_event_loop()

    async def emit(item: T) -> None:
        arrived.put(item)
        while arrived.qsize() > BACKLOG:
            await asyncio.sleep(0.005)

    task = loop.create_task(work(emit))

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
