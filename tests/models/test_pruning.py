"""Pruning: the ratio is met or refused, and the slice computes what the masked original would."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError
from dadpo_bench.models import chat_tokenizer, training
from dadpo_bench.models.pruning import prune, pruned_width
from dadpo_bench.progress import silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.students import student_of
from dadpo_bench.store import open_store
from dadpo_bench.types import Prompt
from tests.tiny import build_tiny_model

PROMPTS = [Prompt(id=str(i), turns=(text,)) for i, text in enumerate(("Name three colours.", "Say something."))]
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}
# Qwen3's heads are as wide as its config says, whatever the hidden size.
ARCHITECTURES: dict[str, dict[str, int]] = {"Llama": {}, "Qwen2": {}, "Qwen3": {"head_dim": 20}, "Mistral": {}}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its MLP is three blocks of 64 wide, and each of its four key-value heads serves two query heads."""
    directory = build_tiny_model(
        tmp_path_factory.mktemp("original"),
        hidden=96,
        architecture=request.param,
        **{**HEADS, **ARCHITECTURES[request.param]},
    )
    model = load(directory)
    for p in model.parameters():
        if p.dim() == 1:  # a fresh model's biases are zero and its norms one: slicing them wrongly would not show
            p.data = torch.linspace(0.5, 1.5, len(p))
    model.save_pretrained(directory)
    return directory


def load(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory).eval()


def share(directory: Path, blocks: int, groups: int) -> float:
    """Of all parameters, those of `blocks` times 64 neurons and of `groups` key-value heads a layer."""
    model = load(directory)
    attention = model.model.layers[0].self_attn
    shared = [*attention.q_proj.parameters(), *attention.k_proj.parameters(), *attention.v_proj.parameters()]
    per_group = sum(p.numel() for p in [*shared, attention.o_proj.weight]) / 4
    return 2 * (3 * 96 * 64 * blocks + per_group * groups) / sum(p.numel() for p in model.parameters())


def pruned(directory: Path, output: Path, blocks: int, groups: int, importance: str = "taylor") -> dict[str, Any]:
    ratio = share(directory, blocks, groups)
    tokenizer = chat_tokenizer(str(directory))
    return prune(
        directory, tokenizer, output, ratio=ratio, importance=importance, prompts=PROMPTS, seed=0, groups=groups
    )


def gone(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Numbers of the rows that are not among those left."""
    kept = {tuple(row.tolist()) for row in after}
    return [i for i, row in enumerate(before) if tuple(row.tolist()) not in kept]


def lost_groups(before: Any, after: Any) -> list[int]:
    """Numbers of the key-value heads that a layer lost."""
    size = before.self_attn.head_dim
    return gone(before.self_attn.k_proj.weight[::size], after.self_attn.k_proj.weight[::size])


WAYS = pytest.mark.parametrize(("blocks", "groups"), [(1, 0), (0, 1), (1, 2)], ids=["mlp", "groups", "both"])


@WAYS
@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_the_pruned_model_computes_what_the_masked_original_does(
    original: Path, importance: str, blocks: int, groups: int, tmp_path: Path
) -> None:
    pruned(original, tmp_path / "small", blocks, groups, importance)
    small, masked = load(tmp_path / "small"), load(original)
    for narrow, layer in zip(small.model.layers, masked.model.layers, strict=True):
        neurons = gone(layer.mlp.gate_proj.weight, narrow.mlp.gate_proj.weight)
        heads = lost_groups(layer, narrow)
        assert (len(neurons), len(heads)) == (64 * blocks, groups)
        layer.mlp.down_proj.weight.data[:, neurons] = 0
        layer.self_attn.o_proj.weight.data.view(96, 4, -1)[:, heads] = 0
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(small(ids).logits, masked(ids).logits, rtol=0, atol=1e-5)


@WAYS
def test_the_slice_is_a_stock_model_of_its_class(original: Path, blocks: int, groups: int, tmp_path: Path) -> None:
    record = pruned(original, tmp_path / "small", blocks, groups)
    small, info = AutoModelForCausalLM.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert type(small) is type(load(original))
    assert not any(info.values())
    assert small.config.intermediate_size == record["width"] == 192 - 64 * blocks
    assert small.config.num_key_value_heads == record["key_value_heads"] == 4 - groups
    assert small.config.num_attention_heads == 2 * (4 - groups)


def test_a_slice_of_fewer_heads_says_how_wide_a_head_is(original: Path, tmp_path: Path) -> None:
    pruned(original, tmp_path / "small", 0, 1)
    width = json.loads((tmp_path / "small" / "config.json").read_text())["head_dim"]
    assert width == load(original).model.layers[0].self_attn.head_dim != 96 // 6


@WAYS
def test_the_removed_share_is_what_the_ratio_asks_for(original: Path, blocks: int, groups: int, tmp_path: Path) -> None:
    record = pruned(original, tmp_path / "small", blocks, groups)
    left, whole = (sum(p.numel() for p in load(d).parameters()) for d in (tmp_path / "small", original))
    assert record["removed"] == 1 - left / whole == pytest.approx(share(original, blocks, groups))


@pytest.mark.parametrize("importance", ["taylor", "magnitude"])
def test_the_group_whose_weights_matter_least_goes(original: Path, importance: str, tmp_path: Path) -> None:
    pruned(original, tmp_path / "small", 0, 1, importance)
    small, model, tokenizer = load(tmp_path / "small"), load(original), chat_tokenizer(str(original))
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.prompt_ids(prompt.messages())])
        with training().autocast():
            model(input_ids=ids, labels=ids).loss.backward()
    for narrow, layer in zip(small.model.layers, model.model.layers, strict=True):
        worth = torch.zeros(4)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weight = getattr(layer.self_attn, name).weight
            each = (weight * weight.grad if importance == "taylor" else weight).detach().abs()
            worth += torch.stack([part.sum() for part in each.chunk(4, dim=1 if name == "o_proj" else 0)])
        assert lost_groups(layer, narrow) == [worth.argmin().item()]


@WAYS
def test_the_same_arguments_give_the_same_student(original: Path, blocks: int, groups: int, tmp_path: Path) -> None:
    files = []
    for name in "ab":
        pruned(original, tmp_path / name, blocks, groups)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_a_recipe_gives_the_student_fewer_groups(tmp_path: Path) -> None:
    teacher = build_tiny_model(tmp_path / "teacher", hidden=96, **HEADS)
    changes = [f"teacher.model={teacher}", f"student.prune.ratio={share(teacher, 1, 1)}", "student.prune.groups=1"]
    bench = Bench(open_store(str(tmp_path / "x.sqlite3")), LocalEngine(), silent())
    student = student_of(bench, load_recipe(changes=changes), PROMPTS)
    assert load(student.directory).config.num_key_value_heads == 3


def test_smollm2_loses_a_fifth_at_a_width_of_1024() -> None:
    config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    # (1536 − 1024)·3·576·30 = 26,542,080 of 134,515,008 parameters: 19.7 %
    assert pruned_width(config, 134_515_008, 0.2) == 1024


def test_a_ratio_that_no_width_meets_is_refused_with_those_that_exist() -> None:
    config = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
    with pytest.raises(UserError, match=r"possible: 0\.2220 or 0\.1973"):
        pruned_width(config, 134_515_008, 0.21)


def refused(directory: Path, ratio: float, groups: int) -> str:
    with pytest.raises(UserError) as error:
        prune(
            directory,
            chat_tokenizer(str(directory)),
            directory / "small",
            ratio=ratio,
            importance="magnitude",
            prompts=[],
            seed=0,
            groups=groups,
        )
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_ratio_that_the_groups_alone_exceed_is_refused_with_those_that_exist(original: Path) -> None:
    least, next_ = (f"{share(original, blocks, 2):.4f}" for blocks in (0, 1))
    said = refused(original, 0.01, 2)
    assert f"prune.ratio 0.01: prune.groups alone removes {least}; possible: {next_} or {least}" in said


def test_a_ratio_that_no_width_beside_the_groups_meets_is_refused_with_those_that_exist(original: Path) -> None:
    least, next_ = (share(original, blocks, 1) for blocks in (0, 1))
    said = refused(original, (least + next_) / 2, 1)
    assert f"no MLP width in multiples of 64 meets it; possible: {next_:.4f} or {least:.4f}" in said


def test_the_last_key_value_group_stays(original: Path) -> None:
    assert "of 4 key-value heads can lose 1, 2, 3" in refused(original, 0.2, 4)


def test_head_counts_that_a_llama_config_refuses_are_refused_with_those_it_takes(tmp_path: Path) -> None:
    # Six query heads do not divide a hidden size of 64.
    teacher = build_tiny_model(tmp_path, hidden=64, **HEADS)
    assert "prune.groups 1: LlamaForCausalLM of 4 key-value heads can lose 2, 3" in refused(teacher, 0.2, 1)


@pytest.mark.parametrize(
    ("architecture", "groups", "missing"),
    [
        ("Phi3", 0, "gate_proj, up_proj;"),
        ("Phi3", 1, "gate_proj, up_proj, q_proj, k_proj, v_proj;"),
        ("Bloom", 0, "gate_proj, up_proj, down_proj;"),
    ],
)
def test_a_model_without_the_projections_is_refused_by_its_class(
    architecture: str, groups: int, missing: str, tmp_path: Path
) -> None:
    teacher = build_tiny_model(tmp_path, architecture=architecture)
    said = refused(teacher, 0.2, groups)
    assert said.startswith(f"{architecture}ForCausalLM cannot be pruned: its layers have no {missing}")


def test_a_model_with_a_norm_over_all_heads_keeps_its_groups(tmp_path: Path) -> None:
    teacher = build_tiny_model(tmp_path, hidden=96, **HEADS, architecture="Olmo2")
    said = refused(teacher, share(teacher, 0, 1), 1)
    assert "Olmo2ForCausalLM has model.layers.0.self_attn.q_norm.weight over all heads" in said
