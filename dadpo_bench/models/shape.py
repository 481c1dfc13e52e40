"""A model's sizes: all that its memory and its FLOPs depend on. Weights are not needed to know them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from dadpo_bench.models.loading import quiet_transformers
from dadpo_bench.models.pruning import pruned_fields


class Shape(NamedTuple):
    """Sizes of a causal language model of Llama's kind: gated MLPs, grouped key-value heads, RMS norms."""

    parameters: int
    """Each counted once, tied ones too."""
    linear: int
    """Parameters of the layers and norms, which every token passes."""
    head: int
    """Weights of the output projection."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int
    """Width of all query heads together."""
    keys: int
    """Width of all key heads together; values have the same."""
    vocabulary: int


def shape_of(model: Any) -> Shape:
    """Sizes of a model, which may lie on torch's meta device."""
    body = model.get_decoder()
    config, head = body.config, model.get_output_embeddings().weight
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(p.numel() for p in body.parameters()) - body.get_input_embeddings().weight.numel(),
        head=head.numel(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        heads=config.num_attention_heads,
        queries=config.num_attention_heads * width,
        keys=(getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * width,
        vocabulary=head.shape[0],
    )


def hollow_model(config: Mapping[str, Any], prune: tuple[float, int] | None = None) -> Any:
    """The model of a `config.json` on torch's meta device: parameters without values.

    `prune` is the ratio and the key-value groups of structured pruning. Raises `UserError` where the model cannot
    lose them.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    read = AutoConfig.for_model(**config)
    with quiet_transformers(), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(read)  # type: ignore[no-untyped-call]
        if prune is None:
            return model
        smaller = copy.deepcopy(model.config)
        smaller.update(pruned_fields(model, *prune))
        return type(model)(smaller)
