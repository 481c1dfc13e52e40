"""Jobs on tiny models: five pairs, a way to train on them, and to compare what came out."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from dadpo_bench import registry
from dadpo_bench.models import Precision, chat_tokenizer, load_model, sequence_log_probs
from dadpo_bench.types import Example, Finish, Job, Pair, Prompt, Reply

FP32 = Precision(torch.float32, torch.float32)
TEXTS = [
    ("Name three colours.", "Red, green and blue.", "Many."),
    ("What is the capital of France?", "Paris.", "The capital of water is tea and sugar."),
    ("Say something.", "First the tea.", "Something."),
    ("Write a short list.", "Water, tea, sugar.", "There are many more, and more."),
    ("Is Paris red?", "The capital is blue.", "Red."),
]


def pairs(reference: Path, teacher: Path) -> list[Example]:
    """With the signals of both models."""
    tokenizer = chat_tokenizer(str(reference))
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
    for name, directory in (("reference", reference), ("teacher", teacher)):
        scores = sequence_log_probs(load_model(directory, FP32), branchings, FP32)
        signals[name] = [Pair(*(s.total for s in row)) for row in scores]
    return [
        e.model_copy(update={"signals": {name: both[i] for name, both in signals.items()}}) for i, e in enumerate(plain)
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
