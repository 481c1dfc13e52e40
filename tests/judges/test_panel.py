"""The panel: whom it takes, and what its members' verdicts make together."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.errors import UserError
from dadpo_bench.judging.comparisons import check_judge, construct_judge, voices
from dadpo_bench.types import Comparison, JudgeContext, Outcome, Prompt, Rating, Reply, Response, Verdict
from judges.panel import Panel
from tests.judges.scripted_server import says, serving

CONTEXT = JudgeContext(Path, None)
WIN, TIE, LOSS = (Verdict(outcome=Outcome(name)) for name in ("win", "tie", "loss"))
LOCAL = {"base_url": "http://127.0.0.1:1/v1"}


def graded(preference: float) -> Verdict:
    return Verdict(outcome=Outcome.win if preference > 0.5 else Outcome.loss, preference=preference)


def panel(members: Any, **settings: Any) -> Panel:
    made: Panel = construct_judge("panel", {"members": members, **settings}, CONTEXT)[1]
    return made


def of(size: int, **settings: Any) -> Panel:
    return panel([{"judge": f"chat:m{number}", "settings": LOCAL} for number in range(size)], **settings)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ([WIN, WIN, LOSS], "win"),
        ([LOSS, TIE, LOSS], "loss"),
        ([WIN, TIE, TIE], "tie"),
        ([WIN, LOSS], "tie"),  # none has the most
        ([WIN, TIE], "tie"),
        ([WIN, TIE, LOSS], "tie"),
        ([WIN, WIN, LOSS, LOSS, TIE], "tie"),
        ([WIN, WIN, TIE, LOSS], "win"),  # the most, though not a half
        ([graded(0.51), graded(0.51), graded(0.0)], "win"),  # outcomes count, not grades
    ],
)
def test_the_majority_is_what_most_members_said(said: list[Verdict], outcome: str) -> None:
    for order in itertools.permutations(said):
        verdict = of(len(said)).verdict(order)
        assert (verdict.outcome, verdict.preference) == (outcome, None)


def test_asked_anew_no_earlier_answer_of_any_member_counts() -> None:
    judges = panel(["longer", {"judge": "chat:m", "settings": LOCAL | {"backend": "batch"}}])
    judges.anew()
    assert judges.members[1].judge.backend.draw == 1


@pytest.mark.parametrize(
    ("said", "preference", "outcome"),
    [
        ([WIN, WIN, LOSS], 2 / 3, "win"),
        ([WIN, LOSS], 0.5, "tie"),
        ([WIN, TIE], 0.75, "win"),
        ([WIN, TIE, LOSS], 0.5, "tie"),
        ([graded(0.51), graded(0.51), graded(0.0)], 0.34, "loss"),  # the same three of which most say win
        ([graded(0.7), LOSS], 0.35, "loss"),
        ([graded(0.2), graded(0.3), WIN], 0.5, "tie"),
    ],
)
def test_the_mean_is_of_preferences(said: list[Verdict], preference: float, outcome: str) -> None:
    for order in itertools.permutations(said):
        verdict = of(len(said), combine="mean").verdict(order)
        assert verdict.preference == pytest.approx(preference)
        assert verdict.outcome == outcome


def test_a_verdict_keeps_what_each_member_said() -> None:
    raw = of(3).verdict([WIN, graded(0.25), LOSS]).raw
    assert raw == '[["chat:m0","win"],["chat:m1",0.25],["chat:m2","loss"]]'


def test_without_a_members_verdict_there_is_none() -> None:
    silent = Verdict(outcome=Outcome.unscored, reason="unparsable")
    for combine in ("majority", "mean"):
        verdict = of(3, combine=combine).verdict([WIN, silent, WIN])
        assert (verdict.outcome, verdict.reason) == (Outcome.unscored, "chat:m1: unparsable")
        assert json.loads(verdict.raw)[1] == ["chat:m1", "unscored"]
    both = of(3).verdict([silent, WIN, silent.model_copy(update={"reason": "x" * 300})]).reason
    assert both.startswith("chat:m0: unparsable; chat:m2: xxx")
    assert len(both) == 200  # what a database's column takes


def test_two_ratings_make_a_verdict() -> None:
    high, low, none = Rating(value=2), Rating(value=1), Rating(value=None, reason="too long")
    assert [high.against(low).outcome, low.against(high).outcome, low.against(low).outcome] == ["win", "loss", "tie"]
    for verdict in (none.against(low), low.against(none)):
        assert (verdict.outcome, verdict.reason) == (Outcome.unscored, "too long")


def test_short_and_long_forms_name_the_same_judges() -> None:
    long = [{"judge": "longer"}, {"judge": "chat", "settings": {"model": "m", "max_calls": 3}}]
    assert [name for name, _, _ in voices("panel:longer+chat:m", {})] == ["longer", "chat:m"]
    named = voices("panel", {"members": long})
    assert [name for name, _, _ in named] == ["longer", "chat:m"]
    assert named[1][2].max_calls == 3
    assert [name for name, _, _ in voices("longer", {})] == ["longer"]


def test_asked_without_a_store_it_asks_every_member() -> None:
    def response(text: str) -> Response:
        return Response(prompt=Prompt(id="p", turns=("Tea?",)), replies=(Reply(text=text),))

    pair = {"contestant": response("short"), "baseline": response("not so short")}
    asked = [Comparison(order="ab", **pair), Comparison(order="ba", **pair)]
    with serving(says("[[A]]")) as server:
        judge = panel(["longer", {"judge": "chat:m", "settings": {"base_url": server.url}}])
        verdicts = dict(judge.judge(asked))
    # The chat model takes whatever comes first: the contestant's, then the baseline's, which is the longer.
    assert [verdicts[0].outcome, verdicts[1].outcome] == ["tie", "loss"]
    assert verdicts[0].raw == '[["longer","loss"],["chat:m","win"]]'


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"members": "pmi"}, "judge panel.members: name at least two judges, e.g. pmi+longer"),
        ({"members": []}, "name at least two judges"),
        ({}, "judge 'panel' needs its members: panel:MEMBERS"),
        ({"members": "pmi+longr"}, "unknown judge 'longr'; did you mean 'longer'?"),
        ({"members": "pmi+"}, "unknown judge ''"),
        ({"members": "pmi+longer:x"}, "judge 'longer' takes no argument"),
        ({"members": ["pmi", {"judge": "panel:longer+pmi"}]}, "a panel cannot sit on a panel"),
        ({"members": "pmi+panel:longer"}, "a panel cannot sit on a panel"),
        ({"members": "pmi+longer+pmi"}, "judge 'pmi' is twice on the panel"),
        ({"members": ["chat:m", {"judge": "chat", "settings": {"model": "m"}}]}, "'chat:m' is twice on the panel"),
        ({"members": ["pmi", {"judge": "chat:m", "settings": {"modle": 1}}]}, "did you mean 'model'?"),
        ({"members": ["pmi", {"jugde": "longer"}]}, "judge panel.members.1.judge: it is missing"),
        ({"members": ["pmi", 3]}, "judge panel.members.1"),
        ({"members": 3}, "judge panel.members"),
        (
            {"members": "pmi+longer", "combine": "median"},
            "judge panel.combine: 'majority' or 'mean' expected, not 'median'",
        ),
        ({"members": "pmi+longer", "combin": "mean"}, "did you mean 'combine'?"),
        ({"members": "pmi+longer", "budget_usd": 2}, "judge panel has no budget_usd of its own: set it in a member's"),
    ],
)
def test_a_mistake_is_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        check_judge("panel", settings)
    assert said in str(told.value)


def test_a_members_missing_key_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="member chat:m of the panel: no API key: set OPENAI_API_KEY"):
        panel("longer+chat:m")
