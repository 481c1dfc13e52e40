"""What a judge can say of two responses, and the way back from the side shown to the contestant."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from dadpo_bench.types import Order, Outcome


class Choice(StrEnum):
    """What a judge says of the two responses as it saw them; the outer two where five levels are offered."""

    much_first = "much_first"
    first = "first"
    tie = "tie"
    second = "second"
    much_second = "much_second"


Labels = Mapping[Choice, str]
"""The offered set: how the judge writes each choice."""

_FIVE = {
    Choice.much_first: 1.0,
    Choice.first: 0.75,
    Choice.tie: 0.5,
    Choice.second: 0.25,
    Choice.much_second: 0.0,
}
_THREE = {Choice.first: 1.0, Choice.tie: 0.5, Choice.second: 0.0}


def worths(labels: Labels) -> Mapping[Choice, float]:
    """How much each choice prefers the response shown first: 1, ½, 0, or in quarters where five are offered."""
    return _FIVE if Choice.much_first in labels else _THREE


class Token(NamedTuple):
    """One token of an answer."""

    text: str
    top: Mapping[str, float]
    """Log-probs, nats, of the likeliest tokens at its place, this one among them."""


class Reading(NamedTuple):
    """What a parser reads: how much the response shown first is preferred, or the rating of the one shown."""

    value: float | None
    reason: str = ""
    """Why there is no value, where more can be said than that there is none."""
    mass: float | None = None
    """Probability of all label tokens together, where a value comes from log-probs."""


UNREAD = Reading(None)


def outcome(preference: float) -> Outcome:
    """One rule for labels, levels and probabilities: above, at or below ½."""
    if preference == 0.5:
        return Outcome.tie
    return Outcome.win if preference > 0.5 else Outcome.loss


def contestants(preference: float, order: Order) -> float:
    """The contestant's share of a preference for the response shown first: it was that in order `ab`."""
    return preference if order == "ab" else 1 - preference
