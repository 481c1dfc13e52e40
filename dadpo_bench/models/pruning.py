"""Structured pruning: narrower MLPs and fewer key-value groups, uniform over layers, saved as a stock model.

Importance as in LLM-Pruner (Ma et al. 2023, arXiv 2305.11627), first-order, summed over all weights of a unit: an
MLP neuron, or a key-value head with its query heads. Weights are sliced directly, without a tracing library.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_AXES = {
    "mlp": {"gate_proj": 0, "up_proj": 0, "down_proj": 1},
    "self_attn": {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1},
}
"""Of each projection, the axis of its weight along which a block's units lie."""


def pruned_width(config: Any, parameters: int, ratio: float, groups: int = 0) -> int:
    """The MLP width that removes `ratio` of all parameters to within 0.5 percentage points.

    `groups` are the parameters that go with key-value groups; with some the MLP may stay whole. Raises `UserError`
    where no multiple of 64 meets the ratio, naming the nearest ratios that exist.
    """
    whole: int = config.intermediate_size
    per_unit: int = 3 * config.hidden_size * config.num_hidden_layers

    def removed(kept: int) -> float:
        return float(((whole - kept) * per_unit + groups) / parameters)

    widths: list[int] = [*range(MULTIPLE, whole, MULTIPLE), *([whole] if groups else [])]
    near = sorted(widths, key=lambda w: abs(removed(w) - ratio))[:2]
    if near and abs(removed(near[0]) - ratio) <= 0.005:
        return near[0]
    options = " or ".join(f"{removed(w):.4f}" for w in sorted(near)) or "none"
    why = f"no MLP width in multiples of {MULTIPLE} meets it"
    if removed(whole) > ratio:
        why = f"prune.groups alone removes {removed(whole):.4f}"
    raise UserError(f"prune.ratio {ratio}: {why}; possible: {options}")


def pruned_fields(model: Any, ratio: float, groups: int = 0) -> dict[str, int]:
    """What pruning changes in the config; reads no weights, so a model on the meta device will do.

    Raises `UserError` as `prune` does.
    """
    layers = _layers(model, _AXES if groups else ["mlp"])
    parameters = sum(p.numel() for p in model.parameters())
    fields = _without(model, layers[0], groups) if groups else {}
    grouped = sum(p.numel() for layer in layers for _, p, _ in _parts(layer, "self_attn")) if groups else 0
    lost = grouped // model.config.num_key_value_heads * groups if groups else 0
    return {**fields, "intermediate_size": pruned_width(model.config, parameters, ratio, lost)}


def prune(
    directory: Path,
    tokenizer: ChatTokenizer,
    output: Path,
    *,
    ratio: float,
    importance: str,
    prompts: Sequence[Prompt],
    seed: int,
    groups: int = 0,
) -> dict[str, Any]:
    """Write the pruned model to `output`; returns what was measured on and what was removed.

    `importance` is `taylor` (|w·∂L/∂w| summed over a unit's weights, L the NLL of the chat-rendered `prompts`) or
    `magnitude` (|w| summed). Every layer loses `groups` key-value heads with their query heads; the MLP width makes
    up the rest of `ratio`. The same arguments give the same weights. Raises `UserError` for what this model cannot
    lose.
    """
    model = load_model(directory, training())
    layers = _layers(model, _AXES if groups else ["mlp"])
    parameters = sum(p.numel() for p in model.parameters())
    heads: int = model.config.num_key_value_heads
    fields = pruned_fields(model, ratio, groups)
    width = fields["intermediate_size"]
    chosen = random.Random(seed).sample(list(prompts), len(prompts))
    if importance == "taylor":
        _backward(model, tokenizer, chosen)
    units = {"mlp": (model.config.intermediate_size, width)}
    if groups:
        units["self_attn"] = (heads, heads - groups)
    small = _sliced(model, layers, units, fields)
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
        "key_value_heads": heads - groups,
        "key_value_heads_before": heads,
        "parameters": remaining,
        "parameters_before": parameters,
        "removed": 1 - remaining / parameters,
    }


def _backward(model: Any, tokenizer: ChatTokenizer, prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        ids = torch.tensor([tokenizer.prompt_ids(prompt.messages())], device=model.device)
        with training().autocast():
            model(input_ids=ids, labels=ids).loss.backward()


def _layers(model: Any, blocks: Iterable[str]) -> Sequence[Any]:
    """The decoder's layers. Raises `UserError` where a projection of `blocks` is missing or fused with another."""
    layers: Sequence[Any] = getattr(model.get_decoder(), "layers", [])
    missing = [
        name
        for block in blocks
        for name in _AXES[block]
        if not layers or not all(hasattr(getattr(layer, block, None), name) for layer in layers)
    ]
    if missing:
        raise UserError(
            f"{type(model).__name__} cannot be pruned: its layers have no {', '.join(missing)}; "
            "prune a Llama, Qwen2, Qwen3 or Mistral model, or name a student.model"
        )
    return layers


def _without(model: Any, layer: Any, groups: int) -> dict[str, int]:
    """The config's fields without `groups` key-value heads. Raises `UserError` where no stock model has them."""
    config, heads = model.config, model.config.num_key_value_heads

    def fields(lost: int) -> dict[str, int]:
        return {
            "num_key_value_heads": heads - lost,
            "num_attention_heads": config.num_attention_heads // heads * (heads - lost),
            # Left out, it would be read as hidden_size / num_attention_heads, which no longer holds.
            "head_dim": layer.self_attn.k_proj.out_features // heads,
        }

    def loads(lost: int) -> bool:
        try:
            type(config).from_dict({**config.to_dict(), **fields(lost)})
        except Exception:  # Llama's wants query heads that divide the hidden size, and raises a type of the hub's
            return False
        return True

    possible = [lost for lost in range(1, heads) if loads(lost)]
    if groups not in possible:
        options = ", ".join(map(str, possible)) or "none"
        raise UserError(f"prune.groups {groups}: {type(model).__name__} of {heads} key-value heads can lose {options}")
    return fields(groups)


def _parts(layer: Any, block: str) -> Iterator[tuple[str, Tensor, int]]:
    """Names, values and axes of the parameters that a block's units share out; an output's bias belongs to none."""
    for name, axis in _AXES[block].items():
        for kind, value in getattr(getattr(layer, block), name).named_parameters():
            if kind == "weight" or axis == 0:
                yield f"{block}.{name}.{kind}", value, axis


def _kept(layer: Any, block: str, before: int, after: int) -> Tensor:
    """(after,) numbers of the most important of `before` units, in order."""
    score = torch.zeros(before, device=layer.mlp.down_proj.weight.device)
    for _, weight, axis in _parts(layer, block):
        if weight.dim() == 2:
            worth = (weight.detach() if weight.grad is None else weight.detach() * weight.grad).abs()
            score += worth.sum(1 - axis).view(before, -1).sum(1)
    return score.topk(after).indices.sort().values


def _sliced(model: Any, layers: Sequence[Any], units: Mapping[str, tuple[int, int]], fields: Mapping[str, int]) -> Any:
    config = copy.deepcopy(model.config)
    config.update({**fields, "_name_or_path": ""})
    state = model.state_dict()
    for number, layer in enumerate(layers):
        for block, (before, after) in units.items():
            kept = _kept(layer, block, before, after)
            for name, value, axis in _parts(layer, block):
                parted = torch.unflatten(value.detach(), axis, (before, -1))
                state[f"model.layers.{number}.{name}"] = parted.index_select(axis, kept).flatten(axis, axis + 1)
    small = type(model)(config)
    for name, value in small.state_dict().items():
        if value.shape != state[name].shape:
            raise UserError(f"{type(model).__name__} has {name} over all heads: leave out prune.groups")
    small.load_state_dict(state)
    small.generation_config = model.generation_config
    return small
