"""How many requests may be in flight: what shrinks it, what widens it, and whom a pause holds. No real clock."""

from __future__ import annotations

import pytest

from judges.backends.window import Ticket, Window


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tickets(window: Window, count: int) -> list[Ticket]:
    return [window.enter() for _ in range(count)]


def test_no_more_have_a_place_than_the_limit() -> None:
    gate = Window(2)
    assert gate.places == 2
    tickets(gate, 2)
    assert (gate.places, gate.load) == (0, 1)
    gate.leave()
    assert (gate.places, gate.load) == (1, 0.5)


def test_one_burst_of_failures_halves_the_limit_once() -> None:
    gate = Window(8)
    for limit in (8, 4):
        for ticket in tickets(gate, limit):  # all were sent before anything was known
            gate.overrun(ticket)
            gate.leave()
        assert gate.limit == limit // 2


def test_the_limit_never_falls_below_one() -> None:
    gate = Window(1)
    for _ in range(3):
        gate.overrun(gate.enter())
        gate.leave()
    assert gate.limit == 1


def test_a_round_of_successes_widens_it_by_one_up_to_what_it_started_with() -> None:
    gate = Window(4)
    gate.overrun(gate.enter())
    gate.leave()
    widths = []
    for _ in range(4):
        for ticket in tickets(gate, gate.limit):
            gate.succeeded(ticket)
            gate.leave()
        widths.append(gate.limit)
    assert widths == [3, 4, 4, 4]  # from 2


def test_successes_of_requests_sent_before_the_halving_widen_nothing() -> None:
    gate = Window(8)
    failed, *others = tickets(gate, 8)
    gate.overrun(failed)
    for ticket in others:
        gate.succeeded(ticket)
    assert gate.limit == 4


def test_a_narrowed_window_has_places_only_for_what_fits() -> None:
    gate = Window(4)
    failed, *_ = tickets(gate, 4)
    gate.overrun(failed)
    places = []
    for _ in range(4):
        gate.leave()
        places.append(gate.places)
    assert places == [0, 0, 1, 2]  # in flight: 3, 2, 1, 0


def test_a_pause_holds_everybody_and_the_longest_counts() -> None:
    clock = Clock()
    gate = Window(4, clock)
    gate.pause(30)
    gate.pause(10)
    assert (gate.places, gate.paused) == (0, pytest.approx(30))
    clock.now = 30.0
    assert (gate.places, gate.paused) == (4, 0)
