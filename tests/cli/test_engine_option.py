"""`--engine` of `eval` and `judge-eval`: where models answer and judges judge; it is closed in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench import engine as engines
from dadpo_bench.cli import app
from dadpo_bench.recipe import EngineChoice
from tests.engine.spreading import Spread

Call = Callable[..., Result]

TURNS = [["Tea?"], ["What is France?", "And Paris?"], ["Say three."]]
CHAT = ("--backend", "local", "--template", "graded", "--set", "max_tokens=1", "--set", "batch_size=1", "-q")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("asked.jsonl").write_text("".join(json.dumps({"id": f"q{i}", "turns": t}) + "\n" for i, t in enumerate(TURNS)))
    pairs = [{"turns": t, "first": ["good"] * len(t), "second": ["bad"] * len(t), "label": "first"} for t in TURNS]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> Spread:
    """What `--engine ray` opens."""
    made = Spread()

    def opened(choice: EngineChoice, _options: Any) -> engines.Engine:
        return made if choice.name == "ray" else engines.LocalEngine()

    monkeypatch.setattr(engines, "open_engine", opened)
    return made


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_local_judge_is_tried_and_tried_again_by_workers(spread: Spread, tiny_models: tuple[Path, Path]) -> None:
    asked = ("judge-eval", f"chat:{tiny_models[0]}", *CHAT, "--pairs", "pairs.jsonl", "--store", "s.sqlite3")
    done = call(*asked, "--engine", "ray", "--retest", 1, "--against", "gptscore")
    assert done.exit_code == 0, (done.output, done.exception)
    assert spread.shares == [4, 2, 2, 6]  # three pairs in both orders, one of them again, six responses rated
    assert spread.closed


def test_models_answer_and_are_judged_by_workers(spread: Spread, tiny_models: tuple[Path, Path]) -> None:
    teacher, student = tiny_models
    models = (student, "--baseline", teacher, "--task", "asked.jsonl", "--max-new-tokens", 4)
    done = call("eval", *models, "--judge", f"chat:{teacher}", *CHAT, "--store", "s.sqlite3", "--engine", "ray")
    assert done.exit_code == 0, (done.output, done.exception)
    assert spread.shares == [0, 0, 0, 0, 4, 2]  # of each model two batches, by their turns
    assert spread.closed


@pytest.mark.parametrize("command", [("judge-eval", "gptscore", "--pairs", "pairs.jsonl"), None])
def test_it_is_closed_where_the_work_fails(
    command: tuple[str, ...] | None, spread: Spread, tiny_models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Spread, "map", stopped)
    model = tiny_models[0]
    asked = command or ("eval", model, "--task", "asked.jsonl", "--judge", "gptscore", "--baseline", tiny_models[1])
    done = call(*asked, "--set", f"model={model}", "--engine", "ray", "--store", "s.sqlite3", "-q")
    assert (done.exit_code, "the same command goes on from here" in done.output) == (130, True), done.output
    assert spread.closed


@pytest.mark.parametrize(
    "command", [("judge-eval", "longer"), ("eval", "m", "--task", "asked.jsonl", "--judge", "pmi")]
)
def test_what_is_no_engine_is_refused_and_makes_no_store(command: tuple[str, ...]) -> None:
    done = call(*command, "--engine", "slurm", "--store", "s.sqlite3")
    assert (done.exit_code, "choose local, ray, or a cluster's HOST:PORT" in done.output) == (2, True)
    assert not Path("s.sqlite3").exists()
