"""LoRA and gradient checkpointing: less memory, the same training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from dadpo_bench.errors import UserError
from dadpo_bench.models import chat_tokenizer, load_model, sequence_log_probs
from dadpo_bench.types import Example
from tests.trainers.jobs import FP32, largest_difference, train

# peft asks transformers by a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*checkpointing. is deprecated:FutureWarning")
LORA = {"rank": 4, "alpha": 8}


def test_only_the_adapters_learn_and_the_merged_model_is_saved(
    tiny: Path,
    examples: list[Example],
    tmp_path: Path,
) -> None:
    steps = train("dadpo", tiny, tmp_path / "x", examples, epochs=6, lora=LORA, learning_rate=5e-3)
    assert steps[-1]["loss"] < steps[0]["loss"]
    merged = load_model(tmp_path / "x", FP32)
    assert set(load_file(tmp_path / "x" / "model.safetensors")) == set(load_file(tiny / "model.safetensors"))
    adapted = PeftModel.from_pretrained(load_model(tiny, FP32), tmp_path / "x" / "adapters")
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=0, atol=1e-4)


def test_the_reference_is_the_adapter_switched_off(
    tiny: Path,
    examples: list[Example],
    tmp_path: Path,
) -> None:
    train("dadpo", tiny, tmp_path / "x", examples, lora=LORA)
    adapted = PeftModel.from_pretrained(load_model(tiny, FP32), tmp_path / "x" / "adapters")
    tokenizer = chat_tokenizer(str(tiny))
    branchings = [tokenizer.branching(e.prompt, [e.chosen, e.rejected], sampled=False) for e in examples]
    with adapted.disable_adapter():
        scores = sequence_log_probs(adapted.get_base_model(), branchings, FP32)
    for example, row in zip(examples, scores, strict=True):
        assert [s.total for s in row] == pytest.approx(example.signals["reference"], abs=1e-4)


def test_a_target_that_is_no_layer_is_refused(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lora\.targets: .*nose"):
        train("sft", tiny, tmp_path / "x", examples, lora={"targets": ["nose"]})


def test_an_adapter_that_the_head_would_not_read_is_refused(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="the output projection take no adapter"):
        train("sft", tiny, tmp_path / "x", examples, lora={"targets": ["lm_head", "q_proj"]})


@pytest.mark.parametrize(
    ("method", "settings"), [("dadpo", {}), ("dadpo", {"lora": LORA}), ("kd", {}), ("on_policy_kd", {})]
)
def test_gradient_checkpointing_changes_memory_and_nothing_else(
    method: str,
    settings: dict[str, Any],
    tiny: Path,
    teacher: Path,
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[bool] = []
    monkeypatch.setattr(
        LlamaMLP, "forward", lambda self, x, forward=LlamaMLP.forward: computed.append(True) or forward(self, x)
    )
    given: dict[str, Any] = {"teacher": teacher, "batch_size": 5, **settings}
    plain = train(method, tiny, tmp_path / "plain", examples, **given)
    once = len(computed)
    recomputed = train(method, tiny, tmp_path / "recomputed", examples, gradient_checkpointing=True, **given)
    assert len(computed) - 2 * once == 2  # both layers of the one step again
    assert [s["loss"] for s in recomputed] == pytest.approx([s["loss"] for s in plain], rel=1e-6)
    assert largest_difference(tmp_path / "plain", tmp_path / "recomputed") < 1e-6
