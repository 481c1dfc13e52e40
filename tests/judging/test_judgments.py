"""What boards say of a judge that was asked in one order, that changed on the way, or that is a contestant's kin."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.judging.comparisons import orders_of
from dadpo_bench.judging.judgments import Judgments, places
from dadpo_bench.leaderboard import render
from dadpo_bench.store import open_store, schema
from tests.judges.scripted_server import Act, says, serving


def judged(recipe: Path, store: Path, script: Any, *more: str) -> tuple[str, int]:
    """The board, and how many questions were asked."""
    with serving(script) as server:
        chosen = ["--judge", "chat:qwen-max", "--set", f"judge_settings.base_url={server.url}"]
        run = ["run", "sft", "--recipe", str(recipe), "--store", str(store), "-q", *chosen, *more]
        done = CliRunner().invoke(app, run)
        assert done.exit_code == 0, done.output
        with closing(open_store(str(store), create=False)) as opened:
            return render(opened), len(server.bodies)


def test_one_drawn_order_costs_half_and_is_said(tiny_recipe: Path, tmp_path: Path) -> None:
    board, both = judged(tiny_recipe, tmp_path / "both.sqlite3", says("[[A]]"))
    drawn, one = judged(tiny_recipe, tmp_path / "one.sqlite3", says("[[A]]"), "--orders", "random")
    assert 2 * one == both
    assert "orders: one for each pair" in drawn
    assert "orders: one for each pair" not in board
    assert "Only one of two orders" not in drawn
    assert drawn.count("| sft | ") > 0


_ASKED = (("drawn", "ba"), ("canary", "ab"), ("canary", "ba"))


def test_other_pairs_asked_in_both_orders_leave_none_half_scored() -> None:
    asked = [(ours, "theirs", order, "win", None, "m") for ours, order in _ASKED]
    stored = Mock()
    stored.connection().execute().cursor.fetchmany.side_effect = [asked, []]
    place = places(["drawn", "canary", "theirs"])
    said = Judgments(stored, schema.Judge(key="j", kind="pairwise"), place)

    def outcomes(*pairs: tuple[str, str]) -> Any:
        at = np.array([[place.get(key, -1) for key in pair] for pair in pairs], dtype=np.int64).reshape(-1, 2)
        return said.outcomes(at[:, 0], at[:, 1])

    assert outcomes(("drawn", "theirs")).tolist() == [[1.0]]
    assert outcomes(("canary", "theirs")).tolist() == [[1.0, 1.0]]
    assert np.isnan(outcomes(("theirs", "drawn"), ("canary", "nobody"))).all()
    assert outcomes().shape == (0, 1)


def test_the_drawn_order_is_decided_by_the_responses_and_fair() -> None:
    drawn = [orders_of("random", f"{i}", "baseline") for i in range(400)]
    assert drawn == [orders_of("random", f"{i}", "baseline") for i in range(400)]
    assert 160 < drawn.count(("ab",)) < 240
    assert orders_of("both", "a", "b") == ("ab", "ba")


def test_a_judge_that_changes_on_the_way_is_told(tiny_recipe: Path, tmp_path: Path) -> None:
    def drifting(number: int, body: dict[str, Any]) -> Act:
        act = says("[[A]]")
        answer = {**json.loads(act.body), "model": "old" if number < 5 else "new"}
        return Act(json.dumps(answer).encode())

    board, _ = judged(tiny_recipe, tmp_path / "x.sqlite3", drifting)
    assert "The endpoint answered as 2 models, so the judge changed on the way: new (" in board


def test_a_judge_of_a_contestants_family_is_told(tiny_recipe: Path, tmp_path: Path) -> None:
    board, _ = judged(tiny_recipe, tmp_path / "other.sqlite3", says("[[A]]"))
    assert "contestant's family" not in board
    recipe = json.loads(tiny_recipe.read_text())
    kin = tmp_path / "qwen-tiny"
    kin.symlink_to(recipe["teacher"]["model"])
    recipe["teacher"]["model"] = str(kin)
    tiny_recipe.write_text(json.dumps(recipe))
    board, _ = judged(tiny_recipe, tmp_path / "kin.sqlite3", says("[[A]]"))
    assert "- **note**: The judge is of a contestant's family: qwen." in board
