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


FOUR_MACHINES = ("--gpu", "h100-80gb", "--gpus", 8, "--nodes", 4)
VICUNA = ("vicuna-7b-pruned20", "--config", f"teacher={CONFIGS / 'vicuna-7b-v1.5.json'}")


def test_on_machines_under_ray_every_step_has_its_place_and_its_time() -> None:
    wide = ("--set", "engine.gpus_per_training=8")
    told: dict[str, Any] = json.loads(plan(*VICUNA, *FOUR_MACHINES, *wide, "--json").stdout)
    found = told["placement"]
    cluster = {"nodes": 4, "gpus": 8, "workers": 32, "gpus_per_training": 8, "trainings": 4}
    assert found["cluster"] == cluster
    steps = {(s["stage"], *s["who"]): s for s in found["steps"]}
    dsft = steps["dsft", "sft"]
    assert (dsft["where"], dsft["items"], dsft["side_by_side"]) == ("trainings", 1, 1)
    assert dsft["time"]["gpu_hours"] == pytest.approx(32 * dsft["time"]["hours"])
    assert dsft["time"]["busy_gpu_hours"] == pytest.approx(8 * dsft["time"]["hours"])
    assert steps["judge", "chat"]["where"] == "asked"
    assert steps["judge", "chat"]["time"] is None
    known = [s["time"] for s in found["steps"] if s["time"]]
    assert found["total"] == pytest.approx({name: sum(time[name] for time in known) for name in known[0]})
    assert told["fits"]
    assert "placement" not in json.loads(plan(*VICUNA, "--gpu", "h100-80gb", "--json").stdout)


def test_people_are_shown_what_runs_where_and_what_is_not_in_it() -> None:
    shown = plan(*VICUNA, *FOUR_MACHINES, "--set", "engine.gpus_per_training=16").stdout
    for words in (
        "4 × 8 × h100-80gb",
        "Ray: 32 workers; 2 trainings at a time, 16 GPUs each",
        "on 32 GPUs",
        "1 item, 1 worker ",
        "8 items, 8 workers",
        "4 trainings, 2 at a time",
        "elsewhere, asked by the driver",
        "a machine has 8 GPUs, so the 16 of a training can be on several",
        "not in it: starting a stage's workers",
        "shares masters, gradients and moments out over them (FSDP)",
    ):
        assert words in shown


def test_on_machines_under_ray_a_training_gets_more_gpus_by_the_recipes_engine() -> None:
    shown = plan(*VICUNA, *FOUR_MACHINES).stdout
    assert "train, kd: 121.0 GB do not fit" in shown
    assert "; engine.gpus_per_training=4;" in shown
    assert "--gpus" not in shown
    few = plan(*VICUNA, "--gpu", "h100-80gb", "--gpus", 2, "--nodes", 1).stdout
    assert "engine.gpus_per_training=2" in few  # of dsft
    assert "engine.gpus_per_training=4" not in few  # there are two


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["vicuna-7b-pruned"], "did you mean 'vicuna-7b-pruned20'?"),
        (["vicuna-7b-pruned20", "--gpu", "h100"], "did you mean 'h100-80gb'?"),
        (["vicuna-7b-pruned20", "--config", "teacher"], "teacher=PATH"),
        (["vicuna-7b-pruned20", "--config", "teacher=none.json"], "no file none.json"),
        (["vicuna-7b-pruned20", "--gpus", "0"], "--gpus"),
        (["vicuna-7b-pruned20", "--utilisation", "2"], "--utilisation"),
        (["vicuna-7b-pruned20", "--nodes", "0"], "--nodes"),
        (["vicuna-7b-pruned20", "--nodes", "2", "--gpu", "cpu"], "--gpu"),
        (
            ["vicuna-7b-pruned20", "--nodes", "2", "--gpu", "h100-80gb", "--set", "engine.gpus_per_training=4"],
            "engine.gpus_per_training=4: all machines together have 2",
        ),
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
