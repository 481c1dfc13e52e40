"""Held-out tasks are answered at the temperatures that their authors give for categories."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dadpo_bench.cli import app


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def asking_mt_bench(tiny_recipe: Path) -> Path:
    """The recipe with three questions of MT-Bench's form held out."""
    kinds = ["writing", "math", "roleplay"]
    questions = [{"question_id": i, "category": kind, "turns": [f"{kind}?"]} for i, kind in enumerate(kinds)]
    _lines(tiny_recipe.parent / "question.jsonl", questions)
    answer = {"question_id": 1, "choices": [{"turns": ["42"]}]}
    _lines(tiny_recipe.parent / "reference_answer_gpt-4.jsonl", [answer])
    recipe = json.loads(tiny_recipe.read_text())
    recipe["tasks"] = {"mt_bench": {"data": str(tiny_recipe.parent)}}
    tiny_recipe.write_text(json.dumps({**recipe, "judge": "longer"}))
    return tiny_recipe


def temperatures(recipe: Path, *options: str) -> dict[str, set[float]]:
    """By question: at which temperatures the methods of the latest run answered it."""
    store = recipe.parent / "s.sqlite3"
    done = CliRunner().invoke(app, ["run", "sft", "--recipe", str(recipe), "--store", str(store), "-q", *options])
    assert done.exit_code == 0, (done.output, done.exception)
    with sqlite3.connect(store) as opened:
        rows = opened.execute(
            "select p.turns, r.sampling from answers a join contestants c on c.key = a.contestant_key "
            "join responses r on r.key = a.response_key join prompts p on p.key = a.prompt_key where c.kind = 'method' "
            "and c.protocol_key = (select protocol_key from runs order by id desc limit 1)"
        ).fetchall()
    found: dict[str, set[float]] = {}
    for turns, sampling in rows:
        found.setdefault(json.loads(turns)[0], set()).add(json.loads(sampling)["temperature"])
    return found


def test_mt_bench_is_answered_at_its_temperatures(asking_mt_bench: Path) -> None:
    assert temperatures(asking_mt_bench) == {"writing?": {0.7}, "math?": {0.0}, "roleplay?": {0.7}}


def test_a_recipe_may_have_one_temperature_for_all_which_is_another_board(asking_mt_bench: Path) -> None:
    temperatures(asking_mt_bench)
    found = temperatures(asking_mt_bench, "--set", "evaluation.by_category=false")
    assert found == {"writing?": {0.0}, "math?": {0.0}, "roleplay?": {0.0}}
    with sqlite3.connect(asking_mt_bench.parent / "s.sqlite3") as opened:
        assert opened.execute("select count(distinct protocol_key) from contestants").fetchone() == (2,)
