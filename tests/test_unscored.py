"""What a judge could not say is counted with its reason, never a tie, and asked again by the next run."""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dadpo_bench import registry
from dadpo_bench.engine import LocalEngine
from dadpo_bench.pipeline import run
from dadpo_bench.plan import make_plan
from dadpo_bench.progress import silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.registry import JudgeEntry
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import Store, open_store, schema
from dadpo_bench.types import Comparison, JudgeContext, Outcome, Rating, Response, Verdict


class Moody:
    """Prefers whatever it sees first; while `failing`, says nothing of prompts that speak of tea."""

    failing = True
    asked = 0

    def __init__(self, config: None, context: JudgeContext) -> None:
        pass

    def identity(self) -> dict[str, Any]:
        return {"judge": "moody"}

    def judge(self, comparisons: Sequence[Comparison]) -> Generator[tuple[int, Verdict]]:
        for index, comparison in enumerate(comparisons):
            type(self).asked += 1
            if self.failing and "Tea" in comparison.prompt.turns[0]:
                yield index, Verdict(outcome=Outcome.unscored, reason="unparsable", raw="Hm.")
            else:
                first = comparison.shown[0] == comparison.contestant
                yield index, Verdict(outcome=Outcome.win if first else Outcome.loss, raw="[[A]]")


class Silent:
    """Rates by length; while `failing`, says nothing of prompts that speak of tea."""

    failing = True
    asked = 0

    def __init__(self, config: None, context: JudgeContext) -> None:
        pass

    def identity(self) -> dict[str, Any]:
        return {"judge": "silent"}

    def rate(self, responses: Sequence[Response]) -> Iterator[tuple[int, Rating]]:
        for index, response in enumerate(responses):
            type(self).asked += 1
            if self.failing and "Tea" in response.prompt.turns[0]:
                yield index, Rating(value=None, reason="missing log-prob")
            else:
                yield index, Rating(value=float(len(response.text)))


@pytest.fixture
def silent_judge(monkeypatch: pytest.MonkeyPatch) -> type[Silent]:
    entry = JudgeEntry(name="silent", summary="for tests", target=f"{__name__}:Silent", kind="pointwise")
    monkeypatch.setattr(registry.Registry, "__getitem__", _with(entry))
    monkeypatch.setattr(Silent, "failing", True)
    monkeypatch.setattr(Silent, "asked", 0)
    return Silent


@pytest.fixture
def moody(monkeypatch: pytest.MonkeyPatch) -> type[Moody]:
    entry = JudgeEntry(name="moody", summary="for tests", target=f"{__name__}:Moody", kind="pairwise")
    monkeypatch.setattr(registry.Registry, "__getitem__", _with(entry))
    monkeypatch.setattr(Moody, "failing", True)
    monkeypatch.setattr(Moody, "asked", 0)
    return Moody


def _with(entry: JudgeEntry) -> Any:
    original = registry.Registry.__getitem__
    return lambda self, name: entry if name == entry.name else original(self, name)


def score(store: Store, recipe: Path, judge: str = "moody") -> dict[str, Any]:
    run(Bench(store, LocalEngine(), silent()), make_plan(load_recipe(str(recipe), judge=judge), ["sft"], 1), {})
    with store.read() as session:
        return dict(session.scalars(select(schema.Score).where(schema.Score.contestant == "sft")).one().values)


def test_unscored_is_counted_and_asked_again(tiny_recipe: Path, tmp_path: Path, moody: type[Moody]) -> None:
    store = open_store(str(tmp_path / "x.sqlite3"))
    first = score(store, tiny_recipe)
    assert (first["prompts"], first["unscored"]) == (3, 1)
    assert (first["win_rate"], first["tie_share"], first["flip_rate"]) == (50, 100, 100)
    with store.read() as session:
        reasons = session.scalars(select(schema.Verdict.reason).where(schema.Verdict.outcome == "unscored")).all()
    assert set(reasons) == {"unparsable"}
    moody.failing, moody.asked = False, 0
    second = score(store, tiny_recipe)
    assert moody.asked == len(reasons)
    assert (second["prompts"], second["unscored"]) == (4, 0)


def test_a_response_without_a_rating_is_counted_and_asked_again(
    tiny_recipe: Path, tmp_path: Path, silent_judge: type[Silent]
) -> None:
    store = open_store(str(tmp_path / "x.sqlite3"))
    first = score(store, tiny_recipe, "silent")
    assert (first["prompts"], first["unscored"]) == (3, 1)
    with store.read() as session:
        missing = session.scalars(select(schema.Rating.reason).where(schema.Rating.value.is_(None))).all()
    assert set(missing) == {"missing log-prob"}
    silent_judge.failing, silent_judge.asked = False, 0
    second = score(store, tiny_recipe, "silent")
    assert silent_judge.asked == len(missing)
    assert (second["prompts"], second["unscored"]) == (4, 0)


def test_a_judge_that_stays_silent_is_asked_every_time_and_noted_once(
    tiny_recipe: Path, tmp_path: Path, silent_judge: type[Silent]
) -> None:
    store = open_store(str(tmp_path / "x.sqlite3"))
    first, asked = score(store, tiny_recipe, "silent"), silent_judge.asked
    silent_judge.asked = 0
    assert score(store, tiny_recipe, "silent") == first
    assert 0 < silent_judge.asked < asked
