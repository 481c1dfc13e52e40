"""`power`: prompts and costs by the store's own differences, worked by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.exchange.parcel import JudgedBy, Judgment, Parcel
from dadpo_bench.exchange.stored import keep
from dadpo_bench.store import Store
from dadpo_bench.tasks import Task
from dadpo_bench.types import JsonObject, Outcome, Prompt, Rating, Reply, Response, Verdict
from tests.empty_store import empty_store

PROMPTS = 32
MARKS = {"W": Outcome.win, "T": Outcome.tie, "L": Outcome.loss, "?": Outcome.unscored}
GPT = {"judge": "chat", "model": "gpt-4o-mini", "host": "api.openai.com"}


def store_of(path: Path, identity: JsonObject = GPT, tokens: int = 0, **patterns: str) -> Store:
    """A store of imported contestants, each with its outcomes over 32 prompts, asked in both orders."""
    asked = [Prompt(id=str(i), turns=(f"{i}?",)) for i in range(PROMPTS)]
    judged = [
        Judgment(name, prompt.key, Verdict(outcome=MARKS[mark], tokens=tokens, answer_tokens=tokens // 10), order)
        for name, pattern in patterns.items()
        for prompt, mark in zip(asked, pattern * PROMPTS, strict=False)
        for order in ("ab", "ba")
    ]
    return kept(path, asked, [*patterns, "base"], "base", JudgedBy("j", "pairwise", identity, judged))


def kept(path: Path, asked: Sequence[Prompt], names: Sequence[str], baseline: str, judge: JudgedBy) -> Store:
    task = Task(name="t", domain="out", split="heldout", prompts=tuple(asked))
    responses = {n: {p.key: Response(prompt=p, replies=(Reply(text=n),)) for p in asked} for n in names}
    store = empty_store(path)
    keep(store, Parcel(task, responses, baseline, [judge]))
    return store


def power(store: Store, *options: object) -> Result:
    return CliRunner().invoke(app, ["power", "--store", store.name, *map(str, options)])


def test_prompts_follow_from_the_differences_in_the_store(tmp_path: Path) -> None:
    result = power(store_of(tmp_path / "x.sqlite3", a="W", b="WWWL"), "--effect", 10, "--json")
    (board,) = json.loads(result.stdout)
    (pair,) = board["pairs"]
    # a wins all 32, b 24: 8 differences of 100 points. Their deviation: √(32·¼·¾/31)·100 = 43.99.
    assert (pair["prompts"], pair["difference"]) == (32, 25)
    assert pair["sd"] == pytest.approx(43.99, abs=0.01)
    # (1.960 + 0.842)²·4.399² = 151.9, and two more by t; 32 prompts find 43.99·2.85/√32 by t, 22.5 points.
    assert board["needed"] == board["median_needed"] == pair["needed"] == 154
    assert pair["detectable"] == pytest.approx(22.5, abs=0.2)


def test_costs_follow_from_the_stored_tokens_and_a_known_price(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", tokens=1000, a="W", b="WWWL")
    (board,) = json.loads(power(store, "--effect", 10, "--json").stdout)
    # 154 prompts, both orders, two contestants; of 1,000 tokens each 900 are read ($0.15 a million), 100 said ($0.60).
    assert board["cost"]["judgments"] == 154 * 2 * 2 == 616
    assert board["cost"]["tokens"] == 616_000
    assert board["cost"]["usd"] == pytest.approx(616 * (900 * 0.15 + 100 * 0.60) / 1e6)
    shown = power(store, "--effect", 10).stdout
    assert "154 prompts for any two" in shown
    assert "judging 2 contestants on 154 prompts: 616 judgments, 616,000 tokens, $0.12" in shown


@pytest.mark.parametrize(
    "identity",
    [{**GPT, "host": "local"}, {**GPT, "model": "mine"}, {"judge": "stranger"}, {"imported": "x"}, {"judge": ["chat"]}],
    ids=["another host", "another model", "another's judge", "imported", "malformed"],
)
def test_where_no_price_is_known_it_says_so(identity: JsonObject, tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", identity, tokens=10, a="W", b="WWWL")
    assert "6,160 tokens, no price is known" in power(store, "--effect", 10).stdout


def test_two_that_never_differed_say_nothing(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", a="WL", b="WL")
    result = power(store, "--effect", 3)
    assert result.exit_code == 0
    assert "never differed" in result.stdout
    (board,) = json.loads(power(store, "--effect", 3, "--json").stdout)
    assert (board["pairs"][0]["needed"], board["pairs"][0]["detectable"]) == (None, None)
    assert "needed" not in board


def test_unscored_prompts_are_not_shared(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", a="W?LT", b="LWT?")
    (board,) = json.loads(power(store, "--effect", 3, "--json").stdout)
    assert board["pairs"][0]["prompts"] == 16


def test_ratings_without_a_baseline_are_counted_in_their_own_points(tmp_path: Path) -> None:
    asked = [Prompt(id=str(i), turns=(f"{i}?",)) for i in range(PROMPTS)]
    judged = [
        Judgment(name, p.key, Rating(value=7 - (i % 4 == 3) * lost))
        for name, lost in (("a", 0), ("b", 4))
        for i, p in enumerate(asked)
    ]
    store = kept(tmp_path / "x.sqlite3", asked, ["a", "b"], "", JudgedBy("j", "pointwise", {}, judged))
    (board,) = json.loads(power(store, "--effect", 0.4, "--json").stdout)
    # 8 of 32 differ by 4: as above in units of 4, so 0.4 is to 1.76 what 10 is to 43.99. One rating a response.
    assert (board["unit"], board["pairs"][0]["difference"], board["needed"]) == ("rating points", 1, 154)
    assert board["cost"]["judgments"] == 2 * 154


def test_mistakes_name_their_remedy(tmp_path: Path) -> None:
    alone = store_of(tmp_path / "alone.sqlite3", a="W")
    store = store_of(tmp_path / "x.sqlite3", a="W", b="WWWL")
    for result, remedy in (
        (power(alone, "--effect", 3), "no two methods"),
        (power(empty_store(tmp_path / "empty.sqlite3"), "--effect", 3), "no two methods"),
        (power(store, "--effect", 0), "least effect that matters"),
        (power(store, "--effect", 3, "--power", 1), "alpha < power"),
        (power(store, "--effect", 3, "--alpha", 0), "alpha < power"),
        (power(store, "--effect", 3, "--task", "tt"), "did you mean 't'?"),
        (power(store, "--effect", 3, "--judge", "jj"), "did you mean 'j'?"),
        (power(store), "--effect"),
    ):
        assert result.exit_code == 2, remedy
        assert remedy in result.stderr
