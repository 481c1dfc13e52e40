"""`plan`: what it tells people and programs, and how it answers a wrong word."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from tests.planning.paper import CONFIGS


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)], env={"COLUMNS": "120"})


def test_a_local_recipe_is_planned_for_this_machine(tiny_recipe: Path) -> None:
    data: dict[str, Any] = json.loads(plan(tiny_recipe, "--json").stdout)
    assert data["fits"]
    assert data["hardware"]["source"].startswith("measured here")
    stages = {(s["stage"], s["who"]): s for s in data["stages"]}
    assert stages["train", "kd"]["bytes"]["weights"] > stages["dsft", "sft"]["bytes"]["weights"]
    assert stages["judge", "pmi"]["flops"] > 0
    assert stages["teacher-responses", "teacher"]["bytes"]["cache"] > 0


def test_a_judge_elsewhere_is_no_model_of_the_recipe() -> None:
    config = CONFIGS / "vicuna-7b-v1.5.json"
    told = json.loads(
        plan("vicuna-7b-pruned20", "--gpu", "h100-80gb", "--config", f"teacher={config}", "--json").stdout
    )
    (judge,) = [stage for stage in told["stages"] if stage["work"] == "ask"]
    assert (judge["who"], judge["model"], judge["flops"], judge["bytes"]["total"]) == ("chat", None, 0, 0)


def test_people_are_shown_tables_advice_and_assumptions() -> None:
    config = CONFIGS / "vicuna-7b-v1.5.json"
    shown = plan("vicuna-7b-pruned20", "--gpu", "a100-80gb", "--config", f"teacher={config}", "--gpus", 2).stdout
    for words in ("6,738,415,616 parameters", "not measured here", "NO", "train, kd", "--gpus 4", "40 %", "FSDP"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["vicuna-7b-pruned"], "did you mean 'vicuna-7b-pruned20'?"),
        (["vicuna-7b-pruned20", "--gpu", "h100"], "did you mean 'h100-80gb'?"),
        (["vicuna-7b-pruned20", "--config", "teacher"], "teacher=PATH"),
        (["vicuna-7b-pruned20", "--config", "teacher=none.json"], "no file none.json"),
        (["vicuna-7b-pruned20", "--gpus", "0"], "--gpus"),
        (["vicuna-7b-pruned20", "--utilisation", "2"], "--utilisation"),
        (["vicuna-7b-pruned20", "--set", "teacher.model=./none"], "no config.json in model directory './none'"),
    ],
)
def test_a_wrong_word_is_answered_with_the_remedy(
    arguments: list[str], remedy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = plan(*arguments)
    said = (result.stderr + capfd.readouterr().err).strip()
    assert result.exit_code == 2
    assert remedy in said
    assert len(said.splitlines()) == 1


def test_a_hub_that_cannot_be_reached_names_the_way_around(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    result = plan("vicuna-7b-pruned20", "--gpu", "h100-80gb")
    assert result.exit_code == 2
    assert "--config teacher=PATH" in result.stderr + capfd.readouterr().err


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"model_type": "none"}'])
def test_a_file_that_is_no_config_is_refused(content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(content)
    result = plan("vicuna-7b-pruned20", "--gpu", "h100-80gb", "--config", f"teacher={tmp_path}")
    said = (result.stderr + capfd.readouterr().err).strip()
    assert result.exit_code == 2
    assert len(said.splitlines()) == 1
