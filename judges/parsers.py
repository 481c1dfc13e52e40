"""Parsers: from a judge's own words, or the log-probs of its tokens, to a preference or a rating.

They read untrusted text: each runs in linear time and knows nothing but the set it was offered. Where a judge
weighs several labels aloud, the last is its verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from judges.verdicts import UNREAD, Choice, Labels, Reading, Token, worths


class Offered(NamedTuple):
    """What the judge could say."""

    labels: Labels
    scale: tuple[float, float] = (1.0, 10.0)
    """Lowest and highest rating."""
    label_mass: float = 0.0
    """Probability that both label tokens must have together."""
    binary: bool = False
    """Whether a probability counts as all or nothing."""


Parser = Callable[[str, Sequence[Token], Offered], Reading]
"""(the judge's words without its thinking, its tokens where log-probs were asked for, what was offered)."""

_THINKING = {"<think>": "</think>", "<thinking>": "</thinking>", "[THINK]": "[/THINK]", "◁think▷": "◁/think▷"}


def without_thinking(text: str) -> str:
    """What stands behind the reasoning that some servers leave in the answer; nothing where it never ended.

    The opening mark may be missing: some chat templates put it into the prompt. Responses cannot plant a
    closing one: templates break it in them. An opening mark further on is a quotation.
    """
    for opened, closed in _THINKING.items():
        if closed in text:
            return text.rpartition(closed)[2]
        if text.lstrip().startswith(opened):
            return ""
    return text


def last_choice(text: str, labels: Labels) -> Choice | None:
    """The choice whose label ends last in `text`, matched exactly; the longer of two that end together."""
    ends = {choice: (at + len(label), len(label)) for choice, label in labels.items() if (at := text.rfind(label)) >= 0}
    return max(ends, key=ends.__getitem__) if ends else None


def last_label(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The last of the offered labels."""
    return _worth(last_choice(text, offered.labels), offered)


def _worth(choice: Choice | None, offered: Offered) -> Reading:
    return Reading(worths(offered.labels)[choice]) if choice else UNREAD


_ARENA_LABEL = re.compile(r"\[\[[AB<>=]++\]\]")


def arena_hard(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The one `[[A>>B]]`-like label that the text holds, however often; two different ones are no verdict."""
    said = set(_ARENA_LABEL.findall(text))
    named = {label: choice for choice, label in offered.labels.items()}
    return _worth(named.get(said.pop()) if len(said) == 1 else None, offered)


def line_label(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The one label that lines begin with, behind at most one space; two different ones are no verdict."""
    lines = [line.removeprefix(" ") for line in text.split("\n")]
    said = {choice for choice, label in offered.labels.items() if any(line.startswith(label) for line in lines)}
    return _worth(said.pop() if len(said) == 1 else None, offered)


# Every repetition is bounded: the search is linear.
_RANKED = re.compile(
    r"""['"]model['"]\s{0,9}:\s{0,9}['"](\w{1,40})['"]\s{0,9},\s{0,9}['"]rank['"]\s{0,9}:\s{0,9}([12])(?![\d.])"""
)


def ranking(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The last rank, 1 or 2, of the model that the first label names, in a list of `{'model': …, 'rank': …}`."""
    ranks = [rank for model, rank in _RANKED.findall(text) if model == offered.labels[Choice.first]]
    return Reading(1.0 if ranks[-1] == "1" else 0.0) if ranks else UNREAD


# What judge models put before their verdict: [RESULT] (Prometheus), **Result:** (Selene), and what Prometheus's own
# parser lets pass for it. Every repetition is bounded: the search is linear.
_RESULT = re.compile(r"\[result\]:?|\[result:|\*\*result:?\*\*:?|^result:", re.IGNORECASE | re.MULTILINE)
_OPENED, _CLOSED = r"[\s*(\[\"]{0,20}", r"[*)\].\"]{0,9}[^\S\n]{0,20}(?:\n|$)"
_SIDE = re.compile(rf"{_OPENED}(?:response\s{{1,3}})?(\w{{1,9}}){_CLOSED}", re.IGNORECASE)
_SCORE = re.compile(rf"{_OPENED}(\d{{1,2}})(?:\s?(?:/|out of)\s?(\d{{1,2}}))?{_CLOSED}", re.IGNORECASE)


def _behind_result(text: str, wanted: re.Pattern[str]) -> re.Match[str] | None:
    """What alone stands on its line behind the last mark of a result."""
    end = max((mark.end() for mark in _RESULT.finditer(text)), default=None)
    return None if end is None else wanted.match(text, end)


def result(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The label alone behind the last `[RESULT]` or `**Result:**`; anything else there is no verdict."""
    found = _behind_result(text, _SIDE)
    named = {label: choice for choice, label in offered.labels.items()}
    return _worth(named.get(found[1]) if found else None, offered)


def result_rating(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The whole number alone, or out of the highest, behind the last `[RESULT]` or `**Result:**`."""
    found = _behind_result(text, _SCORE)
    if not found or (found[2] and float(found[2]) != offered.scale[1]):
        return UNREAD
    return _rated([found[1]], offered)


_CHOICE = re.compile(r'"choice"\s{0,9}:\s{0,9}"([^"\n]{1,40})"', re.IGNORECASE)


def json_choice(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The label, in square brackets or not, of the last `"Choice": "…"`; anything else there is no verdict."""
    found = _CHOICE.findall(text)
    named = {label: choice for choice, label in offered.labels.items()}
    return _worth(named.get(found[-1].strip("[] ")) if found else None, offered)


_NUMBER = r"(\d{1,4}(?:\.\d{0,6})?)"
_SCORES = re.compile(rf"\s{{0,9}}{_NUMBER}[ ,]\s{{0,9}}{_NUMBER}\s{{0,9}}(?:\n|$)")


def score_pair(text: str, _tokens: Sequence[Token], _offered: Offered) -> Reading:
    """Two scores alone on the first line; the higher wins."""
    found = _SCORES.match(text)
    if not found:
        return UNREAD
    first, second = float(found[1]), float(found[2])
    return Reading(0.5 if first == second else float(first > second))


_RATING = re.compile(rf"\[\[{_NUMBER}\]\]")
_BRACKETED = re.compile(rf"\[{_NUMBER}\]")


def rating(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The last `[[number]]`, if it lies on the scale."""
    return _rated(_RATING.findall(text), offered)


def fastchat_rating(text: str, _tokens: Sequence[Token], offered: Offered) -> Reading:
    """The last `[[number]]`, or where there is none the last `[number]`, if it lies on the scale."""
    return _rated(_RATING.findall(text) or _BRACKETED.findall(text), offered)


def _rated(found: Sequence[str], offered: Offered) -> Reading:
    lowest, highest = offered.scale
    return Reading(float(found[-1])) if found and lowest <= float(found[-1]) <= highest else UNREAD


def first_token(_text: str, tokens: Sequence[Token], offered: Offered) -> Reading:
    """P(first label) / P(either label) of the answer's first token, labels matched exactly."""
    return _graded(tokens[0].top if tokens else {}, offered)


def last_token(_text: str, tokens: Sequence[Token], offered: Offered) -> Reading:
    """P(first label) / P(either label) of the answer's last token, labels matched exactly."""
    return _graded(tokens[-1].top if tokens else {}, offered)


def verdict_token(_text: str, tokens: Sequence[Token], offered: Offered) -> Reading:
    """P(first label) / P(either label) of the last token that is a label, else the first; space around is ignored.

    Tokens that differ in space alone, " A" and "A", count together.
    """
    labels = set(offered.labels.values())
    verdicts = [token for token in tokens if token.text.strip() in labels]
    token = verdicts[-1] if verdicts else next(iter(tokens), None)
    masses: dict[str, float] = {}
    for text, logprob in (token.top if token else {}).items():
        masses[text.strip()] = masses.get(text.strip(), 0.0) + math.exp(logprob)
    return _graded({text: math.log(mass) for text, mass in masses.items() if mass > 0}, offered)


def _graded(top: Mapping[str, float], offered: Offered) -> Reading:
    if not top:
        return Reading(None, "missing log-prob")
    first, second = (math.exp(top.get(offered.labels[c], -math.inf)) for c in (Choice.first, Choice.second))
    mass = first + second
    if not mass > 0 or mass < offered.label_mass:
        return Reading(None, f"label mass {math.floor(100 * mass) / 100:.2f} under {offered.label_mass:g}", mass)
    share = float(first > second) if offered.binary else first / mass
    return Reading(share, mass=mass)
