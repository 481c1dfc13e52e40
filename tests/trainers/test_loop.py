"""The loop: deterministic, indifferent to how a step is cut into micro-batches, one order for all methods."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dadpo_bench import registry
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import (
    chat_tokenizer,
)
from dadpo_bench.types import Example, Job
from tests.tiny import build_tiny_model
from tests.trainers.jobs import largest_difference, train

METHODS = ["sft", "kd", "dpo", "dadpo", "dpkd", "distillm2", "on_policy_kd"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_job_gives_the_same_weights_bit_for_bit(
    method: str, tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    first, second = (train(method, tiny, tmp_path / name, examples) for name in "ab")
    assert largest_difference(tmp_path / "a", tmp_path / "b") == 0
    assert [s["loss"] for s in first] == [s["loss"] for s in second]


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_change_memory_and_nothing_else(
    method: str, tiny: Path, teacher: Path, examples: list[Example], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"teacher": teacher, "batch_size": 5}
    whole = train(method, tiny, tmp_path / "whole", examples, micro_batch_tokens=4096, **given)
    parts = train(method, tiny, tmp_path / "parts", examples, micro_batch_tokens=1, **given)
    assert [s["loss"] for s in parts] == pytest.approx([s["loss"] for s in whole], rel=1e-5)
    assert [s["grad_norm"] for s in parts] == pytest.approx([s["grad_norm"] for s in whole], rel=1e-4)
    # Adam's first step is ± the learning rate, so only its sign can show a difference.
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 2.1e-3


def test_dadpo_without_its_teacher_term_trains_the_weights_of_dpo(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    train("dadpo", tiny, tmp_path / "dadpo", examples, beta_reference=0.2, beta_teacher=0.0)
    train("dpo", tiny, tmp_path / "dpo", examples, beta=0.2)
    assert largest_difference(tmp_path / "dadpo", tmp_path / "dpo") == 0


def test_sft_loss_is_the_plain_mean_over_response_tokens(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    steps = train("sft", tiny, tmp_path / "sft", examples, batch_size=5)
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    tokenizer = chat_tokenizer(str(tiny))
    total, count = 0.0, 0
    for example in examples:
        branching = tokenizer.branching(example.prompt, [example.chosen], sampled=False)
        ids = torch.tensor([[*branching.prompt, *branching.continuations[0]]])
        labels = ids.clone()
        labels[0, : len(branching.prompt)] = -100
        tokens = len(branching.continuations[0])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * tokens
        count += tokens
    assert steps[0]["loss"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("method", ["kd", "distillm2", "on_policy_kd"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    method: str, tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    steps = train(method, tiny, tmp_path / "x", examples, batch_size=5)
    assert steps[0]["loss"] == pytest.approx(0, abs=1e-6)


def test_training_prefers_the_chosen_response(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    steps = train("dadpo", tiny, tmp_path / "x", examples, epochs=12, batch_size=5, beta_teacher=0.02)
    assert steps[-1]["accuracy"] == 1
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_metrics_of_a_step_are_reported(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    (first, *_) = train("dadpo", tiny, tmp_path / "x", examples)
    expected = "loss chosen_log_prob rejected_log_prob chosen_reward rejected_reward margin accuracy grad_norm"
    speed = "learning_rate tokens tokens_per_second model_flop_utilisation resident_bytes"
    assert {*expected.split(), *speed.split()} == set(first)
    assert 0 < first["model_flop_utilisation"] < 1


def test_over_long_examples_are_dropped_and_counted(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(str(tiny))
    sizes = [tokenizer.branching(e.prompt, [e.chosen], sampled=False).tokens for e in examples]
    said: list[str] = []
    settings = {"max_tokens": sorted(sizes)[1]}
    job = Job(tiny, tmp_path / "x", examples, settings, seed=0, sampled_ids=False, say=said.append)
    checkpoint = registry.methods.load("sft").train(job)
    assert checkpoint.preflight["dropped_examples"] == sum(size > sorted(sizes)[1] for size in sizes)
    assert any(line.startswith("left out, longer than max_tokens") and line.endswith("of 5 examples") for line in said)


def test_nothing_to_train_on_is_told(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="nothing to train on"):
        train("sft", tiny, tmp_path / "x", examples, max_tokens=2)


def test_a_preference_method_without_its_signal_is_refused(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    bare = [e.model_copy(update={"signals": {"reference": e.signals["reference"]}}) for e in examples]
    with pytest.raises(WorkError, match="no stored signal of teacher"):
        train("dadpo", tiny, tmp_path / "x", bare)


@pytest.mark.parametrize("method", ["kd", "distillm2", "on_policy_kd"])
def test_token_level_distillation_with_another_tokenizer_is_refused(
    method: str, tiny: Path, examples: list[Example], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = build_tiny_model(tmp_path_factory.mktemp("other"), vocabulary=290)
    job = Job(tiny, tmp_path / "x", examples, {}, seed=0, teacher=other, sampled_ids=False)
    with pytest.raises(UserError, match="same tokenizer"):
        registry.methods.load(method).train(job)


def test_a_checkpoint_is_an_ordinary_directory(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    train("sft", tiny, tmp_path / "x", examples)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "x").config.model_type == "llama"
    assert chat_tokenizer(str(tmp_path / "x")).raw.chat_template
