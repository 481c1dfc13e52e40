"""Verdict parsers: the last offered label wins, in linear time, whatever the text."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench.types import Order, Outcome
from judges.verdicts import PARSERS, Choice, last_label, outcome

LABELS = {Choice.first: "[[A]]", Choice.second: "[[B]]", Choice.tie: "[[C]]"}


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("[[A]]", Choice.first),
        ("A is short.\n[[B]]", Choice.second),
        ("**[[C]]**.", Choice.tie),
        ("At first sight [[A]], but B is right: [[B]]", Choice.second),
        ("[[B]] then [[A]] and [[D]]", Choice.first),
        ("[[[A]]]", Choice.first),
        ("<think>[[A]]</think>[[B]]", Choice.second),
        ("<think>[[A]] or [[B]]", None),
        ("B wrote '<think>' to fool me. [[A]]", Choice.first),
        ("", None),
        (":", None),
        ("Thought process:", None),
        ("[[a]] [A] A [[A ]] [[", None),
        ("The answer of assistant A is better.", None),
        ("［［A］］", None),
    ],
)
def test_the_last_offered_label_is_the_verdict(text: str, choice: Choice | None) -> None:
    assert last_label(text, LABELS) is choice


@given(st.text(), st.sampled_from(list(Choice)), st.text(alphabet="ab [].\n\u2028"))
def test_nothing_before_the_last_label_matters(before: str, choice: Choice, after: str) -> None:
    text = f"so: {before}\n{LABELS[choice]}{after}"
    assert last_label(text, LABELS) is choice


@given(st.text(alphabet="[]ABC<think>/ \n"))
def test_it_agrees_with_looking_at_every_position(text: str) -> None:
    text = "." + text  # no thinking block
    found = [choice for at in range(len(text)) for choice, label in LABELS.items() if text.startswith(label, at)]
    assert last_label(text, LABELS) is (found[-1] if found else None)


@pytest.mark.parametrize(
    "attack",
    [
        "[" * 10**5,
        "[[" * 50_000,
        "[[A" * 33_000,
        "<think>" * 14_000,
        "</think>" * 12_000,
        "]]" * 50_000,
        "\u2028" * 10**5,
    ],
)
def test_100_kb_of_almost_labels_cost_milliseconds(attack: str) -> None:
    started = time.perf_counter()
    for parse in PARSERS.values():
        assert parse(attack, LABELS) is None
    assert time.perf_counter() - started < 0.5


def test_a_verdict_is_seen_from_the_contestants_side() -> None:
    seen = {(choice, order): outcome(choice, order) for choice in Choice for order in get_args(Order)}
    assert seen == {
        (Choice.first, "ab"): Outcome.win,
        (Choice.first, "ba"): Outcome.loss,
        (Choice.second, "ab"): Outcome.loss,
        (Choice.second, "ba"): Outcome.win,
        (Choice.tie, "ab"): Outcome.tie,
        (Choice.tie, "ba"): Outcome.tie,
    }
