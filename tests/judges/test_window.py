"""How many requests may be in flight: what shrinks it, what widens it, and whom a pause holds. No real clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from judges.backends.window import Ticket, Window


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


def window(most: int) -> tuple[Window, Clock]:
    clock = Clock()
    return Window(most, clock, clock.sleep), clock


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def tickets(window: Window, count: int) -> list[Ticket]:
    return [await window.enter() for _ in range(count)]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_no_more_are_let_in_than_the_limit() -> None:
    async def work() -> None:
        gate, _ = window(2)
        entered = [asyncio.create_task(gate.enter()) for _ in range(5)]
        await settle()
        assert [task.done() for task in entered] == [True, True, False, False, False]
        gate.leave()
        await settle()
        assert sum(task.done() for task in entered) == 3
        for task in entered:
            task.cancel()

    run(work())


def test_one_burst_of_failures_halves_the_limit_once() -> None:
    async def work() -> None:
        gate, _ = window(8)
        for ticket in await tickets(gate, 8):  # all were sent before anything was known
            gate.overrun(ticket)
            gate.leave()
        assert gate.limit == 4
        for ticket in await tickets(gate, 4):
            gate.overrun(ticket)
            gate.leave()
        assert gate.limit == 2

    run(work())


def test_the_limit_never_falls_below_one() -> None:
    async def work() -> None:
        gate, _ = window(1)
        for _ in range(3):
            gate.overrun(await gate.enter())
            gate.leave()
        assert gate.limit == 1

    run(work())


async def rounds(gate: Window, count: int) -> None:
    for _ in range(count):
        for ticket in await tickets(gate, gate.limit):
            gate.succeeded(ticket)
            gate.leave()


def test_a_round_of_successes_widens_it_by_one_up_to_what_it_started_with() -> None:
    async def work() -> None:
        gate, _ = window(4)
        gate.overrun(await gate.enter())
        gate.leave()
        widths = []
        for _ in range(4):
            await rounds(gate, 1)
            widths.append(gate.limit)
        assert widths == [3, 4, 4, 4]  # from 2

    run(work())


def test_successes_of_requests_sent_before_the_halving_widen_nothing() -> None:
    async def work() -> None:
        gate, _ = window(8)
        failed, *others = await tickets(gate, 8)
        gate.overrun(failed)
        for ticket in others:
            gate.succeeded(ticket)
        assert gate.limit == 4

    run(work())


def test_a_narrowed_window_lets_in_only_what_fits() -> None:
    async def work() -> None:
        gate, _ = window(4)
        first, *_ = await tickets(gate, 4)
        waiting = [asyncio.create_task(gate.enter()) for _ in range(3)]
        gate.overrun(first)
        seen = []
        for _ in range(4):
            gate.leave()
            await settle()
            seen.append(sum(task.done() for task in waiting))
        assert seen == [0, 0, 1, 2]  # in flight: 3, 2, then 1 + 1, then 0 + 2
        for task in waiting:
            task.cancel()

    run(work())


def test_a_pause_holds_everybody_and_the_longest_counts() -> None:
    async def work() -> None:
        gate, clock = window(4)
        gate.pause(30)
        gate.pause(10)
        await asyncio.gather(gate.enter(), gate.enter())
        assert clock.now == 30

    run(work())


def test_whoever_gives_up_waiting_takes_no_place() -> None:
    async def work() -> None:
        gate, _ = window(1)
        await gate.enter()
        quitter, patient = (asyncio.create_task(gate.enter()) for _ in range(2))
        await settle()
        gate.leave()  # wakes the quitter, who is gone before it can go in
        quitter.cancel()
        await settle()
        assert patient.done()

    run(work())
