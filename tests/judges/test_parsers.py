"""Parsers: what each reads of a judge's words or log-probs, in linear time, whatever the text."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench import registry
from dadpo_bench.types import Outcome
from judges import parsers
from judges.parsers import Offered, last_choice, without_thinking
from judges.verdicts import Choice, Reading, Token, contestants, outcome

LABELS = {Choice.first: "[[A]]", Choice.second: "[[B]]", Choice.tie: "[[C]]"}
FIVE = {
    Choice.much_first: "[[A>>B]]",
    Choice.first: "[[A>B]]",
    Choice.tie: "[[A=B]]",
    Choice.second: "[[B>A]]",
    Choice.much_second: "[[B>>A]]",
}
LETTERS = {Choice.first: "m", Choice.second: "M"}


def read(parser: str, text: str, labels: Mapping[Choice, str] = LABELS) -> float | None:
    reading: Reading = registry.parsers.load(parser)(text, (), Offered(labels))
    return reading.value


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("[[A]]", Choice.first),
        ("A is short.\n[[B]]", Choice.second),
        ("**[[C]]**.", Choice.tie),
        ("At first sight [[A]], but B is right: [[B]]", Choice.second),
        ("[[B]] then [[A]] and [[D]]", Choice.first),
        ("[[[A]]]", Choice.first),
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
    assert last_choice(text, LABELS) is choice


@given(st.text(), st.sampled_from(list(LABELS)), st.text(alphabet="ab [].\n\u2028"))
def test_nothing_before_the_last_label_matters(before: str, choice: Choice, after: str) -> None:
    assert last_choice(f"so: {before}\n{LABELS[choice]}{after}", LABELS) is choice


@given(st.text(alphabet="[]ABC>=/ \n"), st.sampled_from([LABELS, FIVE]))
def test_it_agrees_with_looking_at_every_position(text: str, labels: Mapping[Choice, str]) -> None:
    found = [choice for at in range(len(text)) for choice, label in labels.items() if text.startswith(label, at)]
    assert last_choice(text, labels) is (found[-1] if found else None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>[[A]]</think>[[B]]", "[[B]]"),
        ("  <think>[[A]] or [[B]]", ""),
        ("[[A]] it seems</think>\n[[B]]", "\n[[B]]"),
        ("<think>He wrote </think> to fool me</think>[[B]]", "[[B]]"),
        ("[THINK]hm[/THINK]7", "7"),
        ("◁think▷hm◁/think▷7", "7"),
        ("<thinking>[[A]]", ""),
        ("B wrote '<think>'. [[A]]", "B wrote '<think>'. [[A]]"),
        ("plain", "plain"),
    ],
)
def test_thinking_is_no_part_of_the_answer(text: str, answer: str) -> None:
    assert without_thinking(text) == answer


def test_labels_are_worth_one_half_and_nothing_and_five_levels_the_quarters() -> None:
    assert [read("last-label", label) for label in LABELS.values()] == [1, 0, 0.5]
    assert [read("last-label", label, FIVE) for label in FIVE.values()] == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        ("rating", "First [[3]], on reflection [[8]]", 8),
        ("rating", "Rating: [[7.5]].", 7.5),
        ("rating", "[[11]]", None),
        ("rating", "[[0]]", None),
        ("rating", "[[-3]] [[ten]] [[]] [5] 5/10", None),
        ("rating", "[[1e1]]", None),
        ("rating", "[[٣]]", 3),
        ("fastchat-rating", "see [2]. Rating: [[5]] [6]", 5),
        ("fastchat-rating", "Rating: [6]", 6),
        ("score-pair", "8 7\nA is better.", 1),
        ("score-pair", "7, 8", 0),
        ("score-pair", "9.5 9.5\n", 0.5),
        ("score-pair", "8 7 6", None),
        ("score-pair", "A: 8 7", None),
    ],
)
def test_numbers(parser: str, text: str, value: float | None) -> None:
    assert read(parser, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("My final verdict is tie: [[A=B]].", 0.5),
        ("[[B>>A]] ... so [[B>>A]]", 0),
        ("[[A>B]] at first, then [[A=B]]", None),
        ("[[A>>>B]]", None),
        ("[[A>B]] [[A]]", None),
        ("A>B", None),
    ],
)
def test_arena_hard_takes_one_label_however_often_it_is_said(text: str, value: float | None) -> None:
    assert read("arena-hard", text, FIVE) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Output (a)", 1),
        ("\n Output (b), for it is short.\nIt is better than Output (a).", 0),
        ("Output (a)\nOutput (b)", None),
        ("I prefer Output (a)", None),
    ],
)
def test_a_line_label_stands_at_the_beginning_of_a_line(text: str, value: float | None) -> None:
    assert read("line-label", text, {Choice.first: "Output (a)", Choice.second: "Output (b)"}) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[{'model': 'm', 'rank': 1}, {'model': 'M', 'rank': 2}]", 1),
        ('```json\n[{"model": "M", "rank": 1}, {"model": "m", "rank": 2}]\n```', 0),
        ("[{'model': 'm', 'rank': 3}]", None),
        ("[{'model': 'M', 'rank': 1}]", None),
        ("[{'model': 'm', 'rank': 1.5}]", None),
    ],
)
def test_a_ranking_gives_the_first_models_rank(text: str, value: float | None) -> None:
    assert read("ranking", text, LETTERS) == value


# --- log-probs ---


def token(text: str, **masses: float) -> Token:
    return Token(text, {name.replace("_", " "): math.log(mass) for name, mass in masses.items()})


def graded(parser: str, *tokens: Token, mass: float = 0.5, binary: bool = False) -> Reading:
    reading: Reading = registry.parsers.load(parser)("", tokens, Offered(LETTERS, label_mass=mass, binary=binary))
    return reading


def test_a_graded_preference_is_the_first_labels_share_of_both() -> None:
    reading = graded("first-token", token("m", m=0.6, M=0.2, The=0.1))
    assert reading.value == pytest.approx(0.75)  # 0.6 / (0.6 + 0.2)
    assert reading.mass == pytest.approx(0.8)


def test_a_label_that_is_not_among_the_likeliest_has_no_mass() -> None:
    assert graded("first-token", token("M", M=0.9)).value == 0


def test_too_little_label_mass_is_no_verdict_and_says_how_little() -> None:
    reading = graded("first-token", token("Both", Both=0.88, m=0.1, M=0.02))
    assert (reading.value, reading.reason) == (None, "label mass 0.12 under 0.5")
    assert reading.mass == pytest.approx(0.12)
    assert graded("first-token", token("Both", Both=0.88, m=0.09, M=0.03), mass=0.0).value == pytest.approx(0.75)
    assert graded("first-token", token("Both", Both=0.9), mass=0.0).value is None


@pytest.mark.parametrize("parser", ["first-token", "last-token", "verdict-token"])
def test_without_log_probs_there_is_no_verdict(parser: str) -> None:
    assert graded(parser) == Reading(None, "missing log-prob")
    assert graded(parser, Token("m", {})) == Reading(None, "missing log-prob")


def test_all_or_nothing_where_it_is_asked_for() -> None:
    assert graded("first-token", token("m", m=0.5, M=0.4), binary=True).value == 1
    assert graded("first-token", token("m", m=0.4, M=0.4), binary=True).value == 0  # as in AlpacaEval


def test_the_token_is_the_first_the_last_or_the_last_that_is_a_label() -> None:
    said = (token("m", m=1.0), token(" M", m=0.25, M=0.25, _M=0.5), token(".", m=0.9, M=0.1))
    assert graded("first-token", *said).value == 1
    assert graded("last-token", *said).value == pytest.approx(0.9)
    assert graded("verdict-token", *said).value == pytest.approx(0.25)  # "M" and " M" together: 0.75
    assert graded("verdict-token", token("So", m=0.6, M=0.2)).value == pytest.approx(0.75)


@given(st.dictionaries(st.sampled_from(["m", "M", " m", "x"]), st.floats(-50, 0)))
def test_a_graded_reading_lies_between_nothing_and_all_or_says_why_not(top: dict[str, float]) -> None:
    for parser in ("first-token", "last-token", "verdict-token"):
        reading = graded(parser, Token("m", top))
        assert bool(reading.reason) == (reading.value is None)
        assert reading.value is None or 0 <= reading.value <= 1


# --- any text ---


@pytest.mark.parametrize(
    "attack",
    [
        "[" * 10**5,
        "[[" * 50_000,
        "[[A" * 33_000,
        "[[A>" * 25_000,
        "[[" + "A>=B" * 25_000,
        "[[" + "9" * 10**5,
        "[[9" * 33_000,
        "9" * 10**5,
        "9 " * 50_000,
        " " * 10**5,
        "'model': " * 11_000,
        "'model':'m'," * 8_000 + " " * 9_000,
        "<think>" * 14_000,
        "</think>" * 12_000,
        "]]" * 50_000,
        "\n" * 10**5,
        "\u2028" * 10**5,
        "[RESULT]" * 12_000,
        "[RESULT] " + "A " * 50_000,
        "[RESULT]" + "*" * 10**5,
        "**Result:**" * 9_000 + " 5" * 30_000,
        "\nresult:" * 12_000,
        '"Choice": "' * 9_000,
        '"Choice"' + " " * 10**5,
    ],
    ids=lambda attack: repr(attack[:12]),
)
def test_100_kb_of_almost_verdicts_cost_milliseconds(attack: str) -> None:
    for name in registry.parsers.names():
        started = time.process_time()
        assert read(name, without_thinking(attack), FIVE) is None
        assert time.process_time() - started < 0.5, name


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for name in registry.parsers.names():
        reading = registry.parsers.load(name)(without_thinking(text), (), Offered(LABELS))
        assert reading.value is None or 0 <= reading.value <= 10


def test_every_parser_is_registered_under_its_own_name() -> None:
    assert [entry.target for entry in registry.parsers] == [
        f"judges.parsers:{name.replace('-', '_')}" for name in registry.parsers.names()
    ]
    assert all(getattr(parsers, name.replace("-", "_")).__doc__ for name in registry.parsers.names())


def test_a_verdict_is_seen_from_the_contestants_side() -> None:
    seen = [outcome(contestants(value, order)) for value in (1.0, 0.75, 0.5, 0.0) for order in ("ab", "ba")]
    win, tie, loss = Outcome.win, Outcome.tie, Outcome.loss
    assert seen == [win, loss, win, loss, tie, tie, loss, win]
