"""What the other methods learn from: responses to pairs weighed apart, and the policy's own words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dadpo_bench import registry
from dadpo_bench.models import (
    Branching,
    chat_tokenizer,
    load_model,
    respond,
)
from dadpo_bench.models.divergence import kl_divergence
from dadpo_bench.types import Example, Job, Reply, Sampling
from tests.trainers.jobs import FP32, largest_difference, train
from trainers.loop import LoopMethod
from trainers.on_policy_kd import OnPolicyKDConfig, OnPolicyKDObjective


def test_distillm2_is_a_mean_over_pairs_of_means_over_each_responses_tokens(
    tiny: Path, teacher: Path, examples: list[Example], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"alpha": 0.2, "student_share": 0.3}
    (step,) = train("distillm2", tiny, tmp_path / "x", examples, teacher=teacher, batch_size=5, **given)
    student, master = (AutoModelForCausalLM.from_pretrained(d).eval() for d in (tiny, teacher))
    tokenizer, total = chat_tokenizer(str(tiny)), 0.0
    for example in examples:
        branching = tokenizer.branching(example.prompt, [example.chosen, example.rejected], sampled=False)
        for share, continuation in zip((0.7, 0.3), branching.continuations, strict=True):
            ids = torch.tensor([[*branching.prompt, *continuation]])
            with torch.no_grad():
                own, theirs = (m(ids).logits[0, len(branching.prompt) - 1 : -1].softmax(-1) for m in (student, master))
            p, q = (theirs, own) if share == 0.7 else (own, theirs)
            total += share * float((p * (p / (0.2 * p + 0.8 * q)).log()).sum(-1).mean())
    assert step["loss"] == pytest.approx(total / len(examples), rel=1e-5)


@pytest.mark.parametrize("method", ["dpkd", "distillm2"])
def test_a_method_on_pairs_lowers_its_own_loss(
    method: str, tiny: Path, teacher: Path, examples: list[Example], tmp_path: Path
) -> None:
    steps = train(method, tiny, tmp_path / "x", examples, teacher=teacher, epochs=8, batch_size=5, learning_rate=5e-3)
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]


def test_on_policy_kd_lowers_the_exact_kl_to_the_teacher_on_the_students_own_samples(
    tiny: Path, teacher: Path, examples: list[Example], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"epochs": 40, "batch_size": 5, "max_new_tokens": 16, "learning_rate": 1e-2}
    train("on_policy_kd", tiny, tmp_path / "x", examples, teacher=teacher, **given)
    tokenizer = chat_tokenizer(str(tiny))

    def kl(directory: Path) -> float:
        model, master = load_model(directory, FP32), load_model(teacher, FP32)
        drawn = [
            response
            for seed in range(10)
            for response in respond(model, tokenizer, [e.prompt for e in examples], Sampling(max_new_tokens=16), seed)
        ]
        samples = [tokenizer.branching(r.prompt, r.replies, sampled=True) for r in drawn]
        total = kl_divergence(model, master, [(s, s) for s in samples], FP32)
        return total.nats / total.tokens

    assert kl(tmp_path / "x") < 0.7 * kl(tiny)


def test_rollouts_are_drawn_anew_every_step_and_the_same_when_it_is_repeated(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    model, tokenizer = load_model(tiny, FP32), chat_tokenizer(str(tiny))

    def drawn(examples: list[Example], step: int, seed: int = 3) -> list[Branching]:
        job = Job(tiny, tmp_path / "x", examples, {}, seed=seed, teacher=tiny)
        return OnPolicyKDObjective(OnPolicyKDConfig(max_new_tokens=8), job).draw(model, examples, step)

    first = drawn(examples, 1)
    assert [list(b.prompt) for b in first] == [tokenizer.prompt_ids(e.prompt.messages()) for e in examples]
    assert first == drawn(examples, 1)
    assert first != drawn(examples, 2)
    assert first != drawn(examples, 1, seed=4)


def test_on_policy_kd_learns_from_its_own_words_alone(
    tiny: Path, teacher: Path, examples: list[Example], tmp_path: Path
) -> None:
    others = [Example(prompt=e.prompt, chosen=Reply(text="Tea.")) for e in examples]
    train("on_policy_kd", tiny, tmp_path / "a", examples, teacher=teacher)
    train("on_policy_kd", tiny, tmp_path / "b", others, teacher=teacher)
    assert largest_difference(tmp_path / "a", tmp_path / "b") == 0


def test_an_entry_says_whether_its_method_draws_rollouts() -> None:
    for entry in registry.methods:
        method = registry.methods.load(entry.name)
        if isinstance(method, LoopMethod):
            assert entry.rollouts == hasattr(method._objective, "draw"), entry.name


def test_rollouts_are_drawn_while_no_gradient_is_held(
    tiny: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    draw = OnPolicyKDObjective.draw

    def noting(self: OnPolicyKDObjective, model: Any, examples: list[Example], step: int) -> list[Branching]:
        held.append(any(p.grad is not None for p in model.parameters()))
        return draw(self, model, examples, step)

    monkeypatch.setattr(OnPolicyKDObjective, "draw", noting)
    train("on_policy_kd", tiny, tmp_path / "x", examples, teacher=tiny, epochs=2, batch_size=2, max_new_tokens=4)
    assert held == [False] * 6
