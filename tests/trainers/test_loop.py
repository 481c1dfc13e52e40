"""The loop: deterministic, indifferent to how a step is cut into micro-batches, one order for all methods."""

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dadpo_bench import registry
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import (
    Branching,
    Precision,
    chat_tokenizer,
    load_model,
    precision,
    respond,
    sequence_log_probs,
)
from dadpo_bench.models.divergence import kl_divergence
from dadpo_bench.types import Example, Finish, Job, Pair, Prompt, Reply, Sampling
from tests.tiny import build_tiny_model
from trainers import checkpoint
from trainers.on_policy_kd import OnPolicyKDConfig, OnPolicyKDObjective

FP32 = Precision(torch.float32, torch.float32)
METHODS = ["sft", "kd", "dpo", "dadpo", "dpkd", "distillm2", "on_policy_kd"]
TEXTS = [
    ("Name three colours.", "Red, green and blue.", "Many."),
    ("What is the capital of France?", "Paris.", "The capital of water is tea and sugar."),
    ("Say something.", "First the tea.", "Something."),
    ("Write a short list.", "Water, tea, sugar.", "There are many more, and more."),
    ("Is Paris red?", "The capital is blue.", "Red."),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("teacher"), seed=1)


@pytest.fixture(autouse=True)
def _in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")
    precision.compute_dtype.cache_clear()


@pytest.fixture(scope="module")
def examples(tiny: Path, teacher: Path) -> list[Example]:
    """Pairs with the signals of the tiny model as reference and of another one as teacher."""
    tokenizer = chat_tokenizer(str(tiny))
    plain = [
        Example(
            prompt=Prompt(id=str(i), turns=(question,)),
            chosen=Reply(text=good),
            rejected=Reply(text=bad, finish=Finish.length),
        )
        for i, (question, good, bad) in enumerate(TEXTS)
    ]
    branchings = [tokenizer.branching(e.prompt, [e.chosen, e.rejected], sampled=False) for e in plain]
    signals: dict[str, list[Pair]] = {}
    for name, directory in (("reference", tiny), ("teacher", teacher)):
        scores = sequence_log_probs(load_model(directory, FP32), branchings, FP32)
        signals[name] = [Pair(*(s.total for s in row)) for row in scores]
    return [
        e.model_copy(update={"signals": {name: pairs[i] for name, pairs in signals.items()}})
        for i, e in enumerate(plain)
    ]


TIMES = ("tokens_per_second", "model_flop_utilisation", "resident_bytes")
"""Metrics that tell of the machine, not of the training."""


class Stopped(Exception):
    """What a test interrupts a training by."""


def train(
    method: str,
    start: Path,
    output: Path,
    examples: list[Example],
    *,
    teacher: Path | None = None,
    validation: list[Example] | None = None,
    state: Path | None = None,
    stop: int | None = None,
    said: list[str] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """The metrics of every step, that of step 0 first where something is measured before; `stop` raises at a step."""
    steps: list[dict[str, Any]] = []

    def report(step: int, _: int, metrics: Any) -> None:
        if step == stop:
            raise Stopped
        steps.append(dict(metrics))

    job = Job(
        start=start,
        output=output,
        examples=examples,
        settings={"learning_rate": 1e-3, "batch_size": 2, **settings},
        seed=3,
        teacher=teacher or start,
        sampled_ids=False,
        validation=validation or (),
        state=state,
        report=report,
        say=(said if said is not None else []).append,
    )
    registry.methods.load(method).train(job)
    return steps


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def largest_difference(first: Path, second: Path) -> float:
    ours, theirs = weights(first), weights(second)
    return max(float((ours[k] - theirs[k]).abs().max()) for k in ours)


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


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dadpo", {"select": "last"}),
        ("dadpo", {"select": "best", "learning_rate": 0.05}),
        ("on_policy_kd", {"max_new_tokens": 16}),
    ],
)
def test_a_training_interrupted_at_every_step_gives_the_weights_of_an_uninterrupted_one(
    method: str,
    settings: dict[str, Any],
    tiny: Path,
    teacher: Path,
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0)
    monkeypatch.setattr(checkpoint, "SAVE_SHARE", float("inf"))
    given: dict[str, Any] = {
        "teacher": teacher,
        "validation": examples[:2],
        "epochs": 2,
        "validations": 6,
        **settings,
    }
    whole = train(method, tiny, tmp_path / "whole", examples[2:], **given)
    said: list[str] = []
    for step in itertools.count(1):
        (tmp_path / "parts").mkdir()
        try:
            rest = train(
                method, tiny, tmp_path / "parts", examples[2:], state=tmp_path / "x", stop=step, said=said, **given
            )
            break
        except Stopped:
            shutil.rmtree(tmp_path / "parts")  # as the bench does with what a killed run left
    assert step == 5
    assert [line for line in said if "goes on" in line] == [f"goes on behind step {s}" for s in (1, 2, 3)]
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") == 0
    ours, theirs = ({k: v for k, v in m.items() if k not in TIMES} for m in (*rest, whole[-1]))
    assert ours == theirs


def test_a_half_written_state_is_never_gone_on_from(
    tiny: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0)
    (tmp_path / "state" / "partial").mkdir(parents=True)
    (tmp_path / "state" / "partial" / "model.safetensors").write_text("half")
    said: list[str] = []
    train("sft", tiny, tmp_path / "a", examples, state=tmp_path / "state", said=said)
    train("sft", tiny, tmp_path / "b", examples)
    assert not [line for line in said if "goes on" in line or "cannot save" in line]
    assert largest_difference(tmp_path / "a", tmp_path / "b") == 0


def test_a_state_that_finds_no_room_is_told_once_and_training_goes_on(
    tiny: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0)
    (tmp_path / "state").write_text("a file where the folder should be")
    said: list[str] = []
    steps = train("sft", tiny, tmp_path / "a", examples, state=tmp_path / "state", said=said)
    assert len(steps) == 3
    assert len([line for line in said if "cannot save the training's state" in line]) == 1


def test_validation_is_measured_before_the_first_update_and_at_intervals(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    steps = train("dadpo", tiny, tmp_path / "x", examples[1:], validation=examples[:1], epochs=2, validations=2)
    measured = [i for i, step in enumerate(steps) if "validation_loss" in step]
    assert measured == [0, 2, 4]
    # Before the first update the policy is its reference: the loss is −log σ(β_te·(Δ_policy − Δ_teacher)).
    reference, teacher = examples[0].signals["reference"], examples[0].signals["teacher"]
    margin = 0.1 * ((reference.chosen - reference.rejected) - (teacher.chosen - teacher.rejected))
    assert steps[0]["validation_loss"] == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-4)
    assert steps[0]["validation_accuracy"] == float(margin > 0)


def test_validation_examples_are_never_learnt_from(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    train("sft", tiny, tmp_path / "with", examples[1:], validation=examples[:1])
    train("sft", tiny, tmp_path / "without", examples[1:])
    assert largest_difference(tmp_path / "with", tmp_path / "without") == 0


def test_the_best_weights_are_those_of_the_lowest_validation_loss(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    # At this learning rate the tiny model is soon worse on an example it does not see.
    given: dict[str, Any] = {"validation": examples[:1], "epochs": 8, "validations": 8, "learning_rate": 0.03}
    steps = train("sft", tiny, tmp_path / "best", examples[1:3], select="best", **given)
    losses = [step["validation_loss"] for step in steps[1:]]
    lowest = losses.index(min(losses)) + 1
    assert lowest < 8
    branching = chat_tokenizer(str(tiny)).branching(examples[0].prompt, [examples[0].chosen], sampled=False)
    ((score,),) = sequence_log_probs(load_model(tmp_path / "best", FP32), [branching], FP32)
    assert -score.total / score.tokens == pytest.approx(min(losses), rel=1e-5)


def test_best_weights_without_validation_examples_are_refused(
    tiny: Path, examples: list[Example], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="select: best is chosen on validation examples"):
        train("sft", tiny, tmp_path / "x", examples, select="best")


def test_over_long_examples_are_dropped_and_counted(tiny: Path, examples: list[Example], tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(str(tiny))
    sizes = [tokenizer.branching(e.prompt, [e.chosen], sampled=False).tokens for e in examples]
    job = Job(tiny, tmp_path / "x", examples, {"max_tokens": sorted(sizes)[1]}, seed=0, sampled_ids=False)
    checkpoint = registry.methods.load("sft").train(job)
    assert checkpoint.preflight["dropped_examples"] == sum(size > sorted(sizes)[1] for size in sizes)


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
