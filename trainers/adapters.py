"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft: low-rank updates are trained, the merged model is judged.

The reference is the model with its adapters switched off: what its stored signals were scored with.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dadpo_bench.errors import UserError


class LoRA(BaseModel):
    """Settings of the adapters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(16, ge=1, description="Rank of an update.")
    alpha: int = Field(32, ge=1, description="An update is scaled by alpha / rank.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="Names of the linear layers that get one; all but the output projection."
    )


def adapted(model: Any, lora: LoRA) -> Any:
    """peft's model around `model`, whose linear layers now hold adapters and whose own weights are frozen.

    Raises `UserError` without peft, or where a target is no layer of the model.
    """
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'dadpo-bench[lora]'") from error
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        around = get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"lora.targets: {str(error).splitlines()[0]}") from error
    for ends in (model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(ends, BaseTunerLayer):  # the chunked head reads its weight, past any adapter
            raise UserError("lora.targets: embeddings and the output projection take no adapter")
    around.peft_config["default"].base_model_name_or_path = None  # a path of this machine
    return around


def merged_weights(model: Any) -> dict[str, Tensor]:
    """Weights of a model with adapters as if it had none, updates added; the model stays as it is."""
    from peft.tuners.lora import LoraLayer

    weights = {
        name.replace(".base_layer", ""): value for name, value in model.state_dict().items() if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module  # only the kinds for linear layers have weights to merge
            weights[f"{name}.weight"] = (layer.base_layer.weight + layer.get_delta_weight("default")).detach()
    return weights
