"""Sizes, FLOPs and bytes: those that torch counts and keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from dadpo_bench.models import (
    Branching,
    Precision,
    Stream,
    chat_tokenizer,
    device,
    load_model,
    respond,
    streaming,
)
from dadpo_bench.models.flops import forward_flops, training_flops
from dadpo_bench.models.shape import hollow_model, shape_of
from dadpo_bench.planning import footprint
from dadpo_bench.planning.footprint import saved_activations
from dadpo_bench.types import Prompt, Sampling
from tests.planning.paper import CONFIGS, paper_shapes
from tests.tiny import build_tiny_model
from trainers.step import PolicyModel

PAIRS = [Branching(range(40, 70), [range(50, 120), range(60, 110)]) for _ in range(3)]


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


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["Llama", "Qwen2"])
def test_a_policys_cache_is_that_which_its_rollouts_fill(
    compute: torch.dtype, architecture: str, tmp_path: Path
) -> None:
    directory = build_tiny_model(tmp_path, architecture=architecture)
    precision = Precision(torch.float32, compute)
    model, tokenizer = load_model(directory, precision), chat_tokenizer(str(directory))
    filled: list[int] = []

    def note(*call: Any) -> None:
        layers = call[-1].past_key_values.layers
        filled.append(sum(t.nbytes for layer in layers for t in (layer.keys, layer.values)))

    model.register_forward_hook(note)
    prompts = [Prompt(id="1", turns=("Name three colours.",))]
    with precision.autocast():
        respond(model, tokenizer, prompts, Sampling(max_new_tokens=6), 0)
    width = len(tokenizer.prompt_ids(prompts[0].messages()))
    # Each pass makes the keys of the token before it, and the last token needs none.
    for new, held in enumerate(filled):
        assert held == footprint.rollouts(shape_of(model), 1, width, new, compute.itemsize).cache


def test_between_steps_a_policy_holds_all_of_its_training_but_gradients_and_activations() -> None:
    shapes = paper_shapes("vicuna-7b-pruned20")
    sizes: dict[str, Any] = {"teacher": shapes.teacher, "rank": 0}
    step = footprint.training(shapes.student, 1536, 512, 2, **sizes)
    drawing = footprint.rollouts(shapes.student, 8, 200, 64, 2, **sizes)
    assert (drawing.weights, drawing.optimiser, drawing.gradients) == (step.weights, step.optimiser, 0)
    # bf16 casts of layers and head: two bytes a weight.
    assert drawing.copies == 2 * (shapes.student.linear + shapes.student.head)
    assert drawing.total < step.total
    # Frozen weights are cast one at a time: the head of 32,000 × 4,096, and no moments but the adapters'.
    adapted = footprint.rollouts(shapes.student, 8, 200, 64, 2, **{**sizes, "rank": 16})
    assert adapted.copies == 2 * 32_000 * 4_096
    assert adapted.optimiser < drawing.optimiser / 50
