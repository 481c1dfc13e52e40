"""From a judge's words to a verdict: parsers, and the way back from the side shown to the contestant.

A parser reads untrusted text, so it runs in linear time, and knows no answer but the labels it was offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from dadpo_bench.types import Order, Outcome


class Choice(StrEnum):
    """What a judge says of the two responses as it saw them."""

    first = "first"
    second = "second"
    tie = "tie"


Labels = Mapping[Choice, str]
"""The offered set: how the judge writes each choice."""

Parser = Callable[[str, Labels], Choice | None]
"""The choice that a judge's text states, None where it states none."""


def last_label(text: str, labels: Labels) -> Choice | None:
    """The choice whose label ends last in `text`: judges weigh labels aloud before they decide.

    Labels are matched exactly; a leading `<think>` block is no part of the answer.
    """
    answer = _without_thinking(text)
    ends = {choice: at + len(label) for choice, label in labels.items() if (at := answer.rfind(label)) >= 0}
    return max(ends, key=ends.__getitem__) if ends else None


def _without_thinking(text: str) -> str:
    # Only at the very start: further on, the tag may be a quotation from a response that planted it.
    if not text.lstrip().startswith("<think>"):
        return text
    return text.rpartition("</think>")[2] if "</think>" in text else ""


PARSERS: Mapping[str, Parser] = {"last-label": last_label}
"""The parsers that a template can name."""


def outcome(choice: Choice, order: Order) -> Outcome:
    """The contestant's outcome: it was shown first in order `ab`, second in `ba`."""
    if choice is Choice.tie:
        return Outcome.tie
    return Outcome.win if (choice is Choice.first) == (order == "ab") else Outcome.loss
