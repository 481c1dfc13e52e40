"""Pruning: the ratio is met or refused, and the slice computes what the masked original would."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from dadpo_bench.errors import UserError
from dadpo_bench.models import chat_tokenizer
from dadpo_bench.models.pruning import prune, pruned_width
from dadpo_bench.types import Prompt
from tests.tiny import build_tiny_model

PROMPTS = [Prompt(id=str(i), turns=(text,)) for i, text in enumerate(("Name three colours.", "Say something."))]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 96 wide, so its MLP is 192 wide and can lose one or two of three blocks of 64.
    return build_tiny_model(tmp_path_factory.mktemp("wide"), hidden=96)


def ratio_of_one_block(directory: Path) -> float:
    model = AutoModelForCausalLM.from_pretrained(directory)
    return 2 * 3 * 96 * 64 / sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_the_pruned_model_computes_what_the_masked_original_does(wide: Path, importance: str, tmp_path: Path) -> None:
    record = prune(
        wide,
        chat_tokenizer(str(wide)),
        tmp_path / "small",
        ratio=ratio_of_one_block(wide),
        importance=importance,
        prompts=PROMPTS,
        seed=0,
    )
    small, masked = (AutoModelForCausalLM.from_pretrained(d).eval() for d in (tmp_path / "small", wide))
    assert small.config.intermediate_size == record["width"] == 128
    for narrow, layer in zip(small.model.layers, masked.model.layers, strict=True):
        kept = {tuple(row.tolist()) for row in narrow.mlp.gate_proj.weight}
        gone = [i for i, row in enumerate(layer.mlp.gate_proj.weight) if tuple(row.tolist()) not in kept]
        assert len(gone) == 64
        layer.mlp.down_proj.weight.data[:, gone] = 0
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(small(ids).logits, masked(ids).logits, rtol=0, atol=1e-5)


def test_the_same_arguments_give_the_same_student(wide: Path, tmp_path: Path) -> None:
    files = []
    for name in "ab":
        prune(
            wide,
            chat_tokenizer(str(wide)),
            tmp_path / name,
            ratio=ratio_of_one_block(wide),
            importance="taylor",
            prompts=PROMPTS,
            seed=0,
        )
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_smollm2_loses_a_fifth_at_a_width_of_1024() -> None:
    config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    # (1536 − 1024)·3·576·30 = 26,542,080 of 134,515,008 parameters: 19.7 %
    assert pruned_width(config, 134_515_008, 0.2) == 1024


def test_a_ratio_that_no_width_meets_is_refused_with_those_that_exist() -> None:
    config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    with pytest.raises(UserError, match=r"possible: 0\.2220 or 0\.1973"):
        pruned_width(config, 134_515_008, 0.21)
