"""Structured pruning: a narrower MLP of uniform width, saved as a stock model that any runtime reloads.

Importance as in LLM-Pruner (Ma et al. 2023, arXiv 2305.11627), first-order, summed over a neuron's three
groups of weights. Weights are sliced directly: no tracing library, so grouped-query attention is no matter.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dadpo_bench.errors import UserError
from dadpo_bench.models.chat import ChatTokenizer
from dadpo_bench.models.loading import load_model, quiet_transformers
from dadpo_bench.models.precision import training
from dadpo_bench.types import Prompt

MULTIPLE = 64
"""Widths are multiples of it, as matrix kernels like them."""

_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def pruned_width(config: Any, parameters: int, ratio: float) -> int:
    """The MLP width that removes `ratio` of all parameters to within 0.5 percentage points.

    Raises `UserError` where no multiple of 64 does, naming the nearest ratios that exist.
    """
    per_unit: int = 3 * config.hidden_size * config.num_hidden_layers
    width: float = config.intermediate_size - ratio * parameters / per_unit
    nearest = max(MULTIPLE, round(width / MULTIPLE) * MULTIPLE)

    def removed(kept: int) -> float:
        return float((config.intermediate_size - kept) * per_unit / parameters)

    if abs(removed(nearest) - ratio) > 0.005 or nearest >= config.intermediate_size:
        step = range(MULTIPLE, config.intermediate_size, MULTIPLE)
        near = sorted(sorted(step, key=lambda w: abs(removed(w) - ratio))[:2])
        options = " or ".join(f"{removed(w):.4f}" for w in near) or "none"
        raise UserError(f"prune.ratio {ratio}: no MLP width in multiples of {MULTIPLE} meets it; possible: {options}")
    return nearest


def prune(
    directory: Path,
    tokenizer: ChatTokenizer,
    output: Path,
    *,
    ratio: float,
    importance: str,
    prompts: Sequence[Prompt],
    seed: int,
) -> dict[str, Any]:
    """Write the pruned model to `output`; returns what was measured on and what was removed.

    `importance` is `taylor` (|w·∂L/∂w| summed over a neuron's weights, L the NLL of the chat-rendered
    `prompts`) or `magnitude` (|w| summed). The same arguments give the same weights.
    """
    model = load_model(directory, training())
    parameters = sum(p.numel() for p in model.parameters())
    width = pruned_width(model.config, parameters, ratio)
    chosen = random.Random(seed).sample(list(prompts), len(prompts))
    if importance == "taylor":
        _backward(model, tokenizer, chosen)
    layers = model.get_decoder().layers
    kept = [_kept(layer.mlp, width) for layer in layers]
    small = _sliced(model, kept, width)
    with quiet_transformers():
        small.save_pretrained(output)
    tokenizer.raw.save_pretrained(output)
    remaining = sum(p.numel() for p in small.parameters())
    return {
        "importance": importance,
        "prompts": [p.id for p in chosen] if importance == "taylor" else [],
        "seed": seed,
        "width": width,
        "width_before": model.config.intermediate_size,
        "parameters": remaining,
        "parameters_before": parameters,
        "removed": 1 - remaining / parameters,
    }


def _backward(model: Any, tokenizer: ChatTokenizer, prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        ids = torch.tensor([tokenizer.prompt_ids(prompt.messages())], device=model.device)
        with training().autocast():
            model(input_ids=ids, labels=ids).loss.backward()


def _kept(mlp: Any, width: int) -> Tensor:
    """(width,) numbers of the most important neurons, in order."""
    score = torch.zeros(mlp.down_proj.weight.shape[1], device=mlp.down_proj.weight.device)
    for name in _PROJECTIONS:
        weight = getattr(mlp, name).weight
        worth = (weight.detach() if weight.grad is None else weight.detach() * weight.grad).abs()
        score += worth.sum(0 if name == "down_proj" else 1)
    return score.topk(width).indices.sort().values


def _sliced(model: Any, kept: Sequence[Tensor], width: int) -> Any:
    config = copy.deepcopy(model.config)
    config.intermediate_size = width
    config._name_or_path = ""
    state = model.state_dict()
    for number, rows in enumerate(kept):
        prefix = f"model.layers.{number}.mlp."
        for name in _PROJECTIONS:
            for key in (f"{prefix}{name}.weight", f"{prefix}{name}.bias"):
                if key in state and not (name == "down_proj" and key.endswith("bias")):
                    state[key] = state[key][:, rows] if name == "down_proj" else state[key][rows]
    small = type(model)(config)
    small.load_state_dict(state)
    small.generation_config = model.generation_config
    return small
