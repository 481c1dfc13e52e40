"""A whole step of our trainers, up to the optimiser, agrees with TRL: the loss and every parameter's gradient.

Ours is the real job: `train` with its stream, its chunked head and its micro-batches. Theirs is a trainer of TRL's with
its own tokenisation, padded batch and head, or, for KD, its divergence over full logits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset, disable_progress_bars, load_from_disk
from torch.nn.utils.rnn import pad_sequence
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForCausalLM, AutoTokenizer

from dadpo_bench import registry
from dadpo_bench.models import Branching, Precision, chat_tokenizer, device, load_model, precision, sequence_log_probs
from dadpo_bench.types import Example, Job, Pair, Prompt, Reply
from tests.tiny import build_tiny_model

trl = pytest.importorskip("trl")
pytestmark = [
    pytest.mark.skipif(device().type != "cpu", reason="the two are compared in fp32 on the CPU"),
    # TRL calls transformers by names that transformers is about to drop.
    pytest.mark.filterwarnings("ignore:.*checkpointing. is deprecated:FutureWarning"),
]

FP32 = Precision(torch.float32, torch.float32)
# TRL takes all that the template writes behind the prompt as the reply. Where the end of a turn is followed by a
# newline, as in ChatML, it trains and scores that newline too; we stop at the end-of-turn token, behind which nothing
# is ever sampled. Here the newline comes between turns instead, so that both mean the same ids.
TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}\n{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    ("Name three colours.", "Red, green and blue.", "Many."),
    ("What is the capital of France?", "Paris.", "The capital of water is tea and sugar."),
    ("Say something.", "First the tea.", "Something."),
    ("Write a short list, and then the list of the capital of the list.", "Water, tea, sugar.", "More, and more."),
]


class Given(NamedTuple):
    """Models on disk, and pairs with the signals that our scorer stores of them."""

    student: Path
    teacher: Path
    examples: list[Example]


class Step(NamedTuple):
    loss: float
    gradients: list[torch.Tensor]


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Given:
    student, teacher = (
        build_tiny_model(
            tmp_path_factory.mktemp(name), seed=seed, architecture=request.param, chat_template=TEMPLATE, hidden=hidden
        )
        for name, seed, hidden in (("student", 0, 32), ("teacher", 1, 64))
    )
    plain = [
        Example(prompt=Prompt(id=str(i), turns=(question,)), chosen=Reply(text=good), rejected=Reply(text=bad))
        for i, (question, good, bad) in enumerate(TEXTS)
    ]
    signals: dict[str, list[Pair]] = {}
    for name, directory in (("reference", student), ("teacher", teacher)):
        scores = sequence_log_probs(load_model(directory, FP32), branchings(directory, plain), FP32)
        signals[name] = [Pair(*(s.total for s in row)) for row in scores]
    examples = [
        e.model_copy(update={"signals": {name: pairs[i] for name, pairs in signals.items()}})
        for i, e in enumerate(plain)
    ]
    return Given(student, teacher, examples)


@pytest.fixture(autouse=True)
def _in_fp32_and_silence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")
    monkeypatch.setenv("DADPO_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    precision.compute_dtype.cache_clear()
    disable_progress_bars()
    yield
    precision.compute_dtype.cache_clear()


def branchings(directory: Path, examples: list[Example]) -> list[Branching]:
    tokenizer = chat_tokenizer(str(directory))
    return [tokenizer.branching(e.prompt, [e.chosen, e.rejected], sampled=False) for e in examples]


def our_second_step(given: Given, output: Path, method: str, **settings: Any) -> tuple[Step, list[torch.Tensor]]:
    """The step, and the parameters it was made at.

    At the first step the policy is its reference and the loss of DPO is ln 2 whatever the log-probs: the second
    step is the first that tells.
    """
    steps: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
    losses: list[float] = []

    def catch(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        parameters = optimiser.param_groups[0]["params"]
        steps.append(([p.detach().clone() for p in parameters], [p.grad.clone() for p in parameters]))

    job = Job(
        start=given.student,
        output=output,
        examples=given.examples,
        settings={
            "epochs": 2,
            "batch_size": len(given.examples),
            "micro_batch_tokens": 150,  # several micro-batches a step
            "learning_rate": 1e-3,
            "max_grad_norm": 1e9,  # gradients as they are
            **settings,
        },
        seed=0,
        teacher=given.teacher,
        sampled_ids=False,
        report=lambda step, steps_, metrics: losses.append(metrics["loss"]),
    )
    hook = register_optimizer_step_pre_hook(catch)
    try:
        registry.methods.load(method).train(job)
    finally:
        hook.remove()
    assert len(steps) == len(losses) == 2
    parameters, gradients = steps[1]
    return Step(losses[1], gradients), parameters


def model_with(directory: Path, parameters: list[torch.Tensor]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        for own, value in zip(model.parameters(), parameters, strict=True):
            own.copy_(value)
    return model.train()


def whole_batch(config: Any, start: Path, folder: Path, rows: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    """What TRL's trainers take beside models: all rows in one batch, files and caches in the folder."""
    Dataset.from_list(rows).save_to_disk(folder / "rows")
    arguments = config(
        output_dir=str(folder / "output"),
        per_device_train_batch_size=len(rows),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
        **settings,
    )
    return {
        "args": arguments,
        "train_dataset": load_from_disk(str(folder / "rows")),
        "processing_class": AutoTokenizer.from_pretrained(start),
    }


def dpo_of_trl(given: Given, folder: Path, model: Any, reference: Any = None, **settings: Any) -> Any:
    rows = [
        {
            "prompt": [m.model_dump() for m in e.prompt.messages()],
            "chosen": [{"role": "assistant", "content": e.chosen.text}],
            "rejected": [{"role": "assistant", "content": e.rejected.text}],
        }
        for e in given.examples
    ]
    return trl.DPOTrainer(model, reference, **whole_batch(trl.DPOConfig, given.student, folder, rows, **settings))


def log_probs_of_trl(given: Given, directory: Path, folder: Path) -> dict[str, list[float]]:
    """The columns TRL precomputes of a reference model."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    rows = dpo_of_trl(given, folder, model, precompute_ref_log_probs=True).train_dataset
    return {name: list(rows[name]) for name in ("ref_chosen_logps", "ref_rejected_logps")}


def step_of(trainer: Any) -> Step:
    (batch,) = trainer.get_train_dataloader()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return Step(float(loss.detach()), [p.grad for p in trainer.model.parameters()])


def assert_same(ours: Step, theirs: Step, model: Any) -> None:
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
    names = [name for name, _ in model.named_parameters()]
    for name, own, other in zip(names, ours.gradients, theirs.gradients, strict=True):
        # Relative to the tensor's largest entry: an absolute bound lets a tensor of small gradients pass whatever
        # it holds, and single entries that cancel to nearly zero have no digits to compare.
        scale = float(other.abs().max())
        assert scale > 0, name
        assert float((own - other).abs().max()) <= 1e-4 * scale, name


def test_the_template_gives_trl_the_same_ids(given: Given, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(given.student)
    rows = dpo_of_trl(given, tmp_path, model).train_dataset
    theirs = [Branching(row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]]) for row in rows]
    assert theirs == branchings(given.student, given.examples)


@pytest.mark.parametrize("name", ["reference", "teacher"])
def test_stored_signals_are_the_log_probs_that_trl_precomputes(name: str, given: Given, tmp_path: Path) -> None:
    theirs = log_probs_of_trl(given, given.student if name == "reference" else given.teacher, tmp_path)
    stored = [e.signals[name] for e in given.examples]
    assert [pair.chosen for pair in stored] == pytest.approx(theirs["ref_chosen_logps"], rel=1e-5)
    assert [pair.rejected for pair in stored] == pytest.approx(theirs["ref_rejected_logps"], rel=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"), [("dpo", {"beta": 0.2}), ("dadpo", {"beta_reference": 0.2, "beta_teacher": 0.0})]
)
def test_a_step_of_dpo_and_of_dadpo_without_a_teacher_is_dpo_of_trl(
    method: str, settings: dict[str, float], given: Given, tmp_path: Path
) -> None:
    ours, parameters = our_second_step(given, tmp_path / "ours", method, **settings)
    reference = AutoModelForCausalLM.from_pretrained(given.student, dtype=torch.float32)
    model = model_with(given.student, parameters)
    theirs = step_of(dpo_of_trl(given, tmp_path / "theirs", model, reference, beta=0.2))
    assert_same(ours, theirs, model)


def test_a_step_of_dadpo_is_dpo_of_trl_anchored_to_the_mixed_reference(given: Given, tmp_path: Path) -> None:
    b1, b2 = 0.1, 0.03
    ours, parameters = our_second_step(given, tmp_path / "ours", "dadpo", beta_reference=b1, beta_teacher=b2)
    reference = log_probs_of_trl(given, given.student, tmp_path / "reference")
    teacher = log_probs_of_trl(given, given.teacher, tmp_path / "teacher")
    model = model_with(given.student, parameters)
    trainer = dpo_of_trl(given, tmp_path / "theirs", model, precompute_ref_log_probs=True, beta=b1 + b2)
    for name in reference:
        mixed = [(b1 * r + b2 * t) / (b1 + b2) for r, t in zip(reference[name], teacher[name], strict=True)]
        trainer.train_dataset = trainer.train_dataset.remove_columns(name).add_column(name, mixed)
    assert_same(ours, step_of(trainer), model)


def test_a_step_of_dpkd_is_length_normalised_dpo_of_trl_against_the_teacher(given: Given, tmp_path: Path) -> None:
    ours, parameters = our_second_step(given, tmp_path / "ours", "dpkd", beta=2.0)
    reference = AutoModelForCausalLM.from_pretrained(given.teacher, dtype=torch.float32)
    model = model_with(given.student, parameters)
    theirs = dpo_of_trl(given, tmp_path / "theirs", model, reference, beta=2.0, loss_type="sigmoid_norm")
    assert_same(ours, step_of(theirs), model)


@pytest.mark.parametrize(("kind", "beta"), [("forward_kl", 0.0), ("reverse_kl", 1.0), ("jsd", 0.3)])
def test_a_step_of_kd_is_the_divergence_of_trl_over_full_logits(
    kind: str, beta: float, given: Given, tmp_path: Path
) -> None:
    from trl.experimental.gkd import GKDTrainer

    settings = {"divergence": kind, **({"beta": beta} if kind == "jsd" else {})}
    ours, parameters = our_second_step(given, tmp_path / "ours", "kd", **settings)
    model = model_with(given.student, parameters)
    teacher = AutoModelForCausalLM.from_pretrained(given.teacher, dtype=torch.float32)
    taught = [(b.prompt, b.continuations[0]) for b in branchings(given.student, given.examples)]
    ids = pad_sequence([torch.tensor([*x, *y]) for x, y in taught], batch_first=True)
    labels = pad_sequence([torch.tensor([-100] * len(x) + y) for x, y in taught], batch_first=True, padding_value=-100)
    with torch.no_grad():
        goal = teacher(ids).logits
    # "batchmean" of TRL is what our loop takes, the mean over response tokens; both give `beta` to the teacher.
    loss = GKDTrainer.generalized_jsd_loss(model(ids).logits[:, :-1], goal[:, :-1], labels[:, 1:], beta=beta)
    loss.backward()
    assert_same(ours, Step(float(loss.detach()), [p.grad for p in model.parameters()]), model)


def test_a_step_of_sft_is_sft_of_trl_on_completions_alone(given: Given, tmp_path: Path) -> None:
    ours, parameters = our_second_step(given, tmp_path / "ours", "sft")
    model = model_with(given.student, parameters)
    rows = [
        {
            "prompt": [m.model_dump() for m in e.prompt.messages()],
            "completion": [{"role": "assistant", "content": e.chosen.text}],
        }
        for e in given.examples
    ]
    batch = whole_batch(trl.SFTConfig, given.student, tmp_path / "theirs", rows, completion_only_loss=True)
    assert_same(ours, step_of(trl.SFTTrainer(model, **batch)), model)
