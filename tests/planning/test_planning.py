"""`plan`: its arithmetic against what torch counts and keeps, its advice by the same arithmetic, its command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.models import Branching, Precision, Stream, device, load_model, streaming
from dadpo_bench.models.flops import forward_flops, training_flops
from dadpo_bench.models.shape import hollow_model, shape_of
from dadpo_bench.pipeline import make_plan
from dadpo_bench.planning import GPUS, ROOM, Load, Setting, Shapes, forecast_of, loads, shapes_of
from dadpo_bench.planning.footprint import saved_activations
from dadpo_bench.planning.forecast import memory_of
from dadpo_bench.recipe import load_recipe
from tests.tiny import build_tiny_model
from trainers.step import PolicyModel

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
PAPER = {
    "vicuna-7b-pruned20": {"teacher": "vicuna-7b-v1.5"},
    "qwen2.5-1.5b-from-7b": {"teacher": "qwen2.5-7b-instruct", "student": "qwen2.5-1.5b"},
}
PAIRS = [Branching(range(40, 70), [range(50, 120), range(60, 110)]) for _ in range(3)]


def paper_shapes(name: str) -> Shapes:
    return shapes_of(load_recipe(name), {role: CONFIGS / f"{file}.json" for role, file in PAPER[name].items()})


def paper_loads(name: str) -> dict[str, Load]:
    recipe = load_recipe(name)
    return {f"{load.stage}/{load.who}": load for load in loads(make_plan(recipe, list(recipe.methods), 1))}


@pytest.mark.parametrize("architecture", ["Llama", "Qwen2"])
def test_sizes_need_no_weights(architecture: str, tmp_path: Path) -> None:
    directory = build_tiny_model(tmp_path, architecture=architecture)
    hollow = hollow_model(json.loads((directory / "config.json").read_text()))
    assert shape_of(hollow) == shape_of(AutoModelForCausalLM.from_pretrained(directory))
    assert next(hollow.parameters()).device.type == "meta"


@pytest.mark.parametrize(
    ("file", "billions", "without_embeddings"),
    [("vicuna-7b-v1.5", 6.74, None), ("qwen2.5-7b-instruct", 7.61, 6.53), ("qwen2.5-1.5b", 1.54, 1.31)],
)
def test_the_paper_models_have_the_parameters_of_their_model_cards(
    file: str, billions: float, without_embeddings: float | None
) -> None:
    shape = shape_of(hollow_model(json.loads((CONFIGS / f"{file}.json").read_text())))
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.01)
    if without_embeddings:
        assert shape.linear / 1e9 == pytest.approx(without_embeddings, abs=0.01)


def test_a_pruned_student_has_the_parameters_that_the_recipe_asks_for() -> None:
    shapes = paper_shapes("vicuna-7b-pruned20")
    assert shapes.student.parameters / shapes.teacher.parameters == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2"])
def test_flops_and_saved_activations_are_those_that_torch_counts(
    compute: torch.dtype, architecture: str, tmp_path: Path
) -> None:
    # Hidden sizes of some hundreds: below them masks and positions weigh as much as activations.
    directory = build_tiny_model(tmp_path, hidden=256, layers=3, architecture=architecture)
    precision = Precision(torch.float32, compute)
    model = load_model(directory, precision)
    policy, stream = PolicyModel(model, precision), Stream.pack(PAIRS, device())
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {tuple(p.shape[::order]) for p in model.parameters() for order in (1, -1)}
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights and tuple(tensor.shape) not in shapes:  # autocast's copies are planned as copies
            saved[place] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    with streaming(model, stream.longest):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = policy(stream).sum()
        del loss
        with counter:
            policy(stream).sum().backward()
    kept = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    shape, targets = shape_of(model), len(stream.targets)
    again = sum(len(p.prompt) + len(p.continuations[1]) for p in PAIRS) / stream.tokens
    predicted = saved_activations(shape, stream.tokens, compute.itemsize, again) + 4 * targets * shape.hidden
    assert predicted == pytest.approx(kept, rel=0.15)
    assert training_flops(model, stream) == pytest.approx(counter.get_total_flops(), rel=0.15)
    assert training_flops(model, stream) == 3 * forward_flops(shape, stream.tokens, targets, stream.layout.visible_keys)


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_is_planned_and_what_helps_makes_it_fit(name: str) -> None:
    shapes, found = paper_shapes(name), paper_loads(name)
    setting = Setting(GPUS["rtx4090-24gb"], 1, 0.4)
    forecasts = {key: forecast_of(load, shapes, setting) for key, load in found.items()}
    assert not forecasts["train/dadpo"].fits
    assert forecasts["train/kd"].memory.weights > forecasts["train/dadpo"].memory.weights
    assert all(f.flops > 0 and f.hours > 0 for key, f in forecasts.items() if not key.startswith("judge"))
    for key, planned in forecasts.items():
        assert planned.fits == (planned.memory.total <= ROOM * 24e9)
        for remedy in planned.remedies:
            option, _, value = remedy.partition(" ")
            if option == "--gpus":
                changed = setting._replace(gpus=int(value))
            elif option == "--gpu":
                changed = setting._replace(hardware=GPUS[value])
            else:
                continue
            assert forecast_of(found[key], shapes, changed).fits, remedy


def test_a_smaller_batch_or_micro_batch_is_advised_where_that_is_enough() -> None:
    shapes, found = paper_shapes("qwen2.5-1.5b-from-7b"), paper_loads("qwen2.5-1.5b-from-7b")

    def advice(load: Load) -> tuple[str, ...]:
        room = memory_of(load, shapes, Setting(GPUS["h100-80gb"], 1, 0.4)).total * 0.98 / ROOM
        return forecast_of(load, shapes, Setting(GPUS["h100-80gb"]._replace(memory=room), 1, 0.4)).remedies

    assert any(r.startswith("methods.kd.micro_batch_tokens=") for r in advice(found["train/kd"]))
    assert "dadpo instead of kd: it trains without the teacher in memory" in advice(found["train/kd"])
    assert "teacher_sampling.batch_size=16" in advice(found["teacher-responses/teacher"])


def test_memory_falls_with_gpus_and_rises_with_the_micro_batch() -> None:
    shapes, load = paper_shapes("vicuna-7b-pruned20"), paper_loads("vicuna-7b-pruned20")["train/dadpo"]

    def total(gpus: int, tokens: int) -> float:
        setting = Setting(GPUS["h100-80gb"], gpus, 0.4)
        return memory_of(replace(load, micro_batch_tokens=tokens), shapes, setting).total

    assert total(4, 1536) < total(2, 1536) < total(1, 1536) < total(1, 8192)


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
