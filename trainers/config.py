"""Settings that all methods share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trainers.adapters import LoRA


class TrainConfig(BaseModel):
    """Settings that all methods share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate of AdamW.")
    epochs: int = Field(1, ge=1, description="Passes over the examples.")
    batch_size: int = Field(8, ge=1, description="Examples (or pairs) of one optimiser step.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    micro_batch_tokens: int = Field(
        1536,
        ge=1,
        description="Unique tokens of one forward and backward pass: bounds memory, not the result.",
    )
    max_tokens: int = Field(
        2048, ge=2, description="Longer examples (prompt with all its responses) are dropped and counted."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute each layer in the backward pass: a third more time, far less memory."
    )
    lora: LoRA | None = Field(None, description="Train low-rank adapters ({rank, alpha, targets}), not all weights.")
    validations: int = Field(
        2, ge=1, description="Times that validation is measured while training; one more precedes the first update."
    )
    select: Literal["last", "best"] = Field(
        "last", description="Weights that are kept: the last, or those of the lowest validation loss."
    )
