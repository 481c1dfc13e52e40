"""Trainings in processes of their own: two of them, over gloo on the CPU, give the losses of one."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import WorkError
from dadpo_bench.types import Checkpoint, Example, Job

TWO = shlex.split(
    "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
)
"""Without a GPU accelerate's `--multi_gpu` means gloo on the CPU; `--cpu` alone would start one process."""
Trained = tuple[Checkpoint, list[dict[str, Any]], list[str]]


@pytest.fixture
def train(tiny: Path, examples: list[Example]) -> Callable[..., Trained]:
    """`train(output, launch, **settings)` with dadpo: the checkpoint, the metrics, what was said."""

    def run(output: Path, launch: Sequence[str] = (), **settings: Any) -> Trained:
        metrics: list[dict[str, Any]] = []
        said: list[str] = []
        job = Job(
            start=tiny,
            output=output,
            examples=examples[:3],
            settings={"learning_rate": 1e-3, "batch_size": 2, "micro_batch_tokens": 1, **settings},
            seed=3,
            sampled_ids=False,
            validation=examples[:1],
            report=lambda step, steps, values: metrics.append(dict(values)),
            say=said.append,
        )
        return LocalEngine(launch).train("dadpo", job), metrics, said

    return run


def test_two_processes_give_the_losses_and_weights_of_one(train: Callable[..., Trained], tmp_path: Path) -> None:
    one, alone, said = train(tmp_path / "one")
    two, shared, said_by_two = train(tmp_path / "two", TWO)
    assert said_by_two == [*said, "2 processes"]
    assert (two.steps, two.tokens) == (one.steps, one.tokens)
    names = ("loss", "chosen_log_prob", "margin", "accuracy", "grad_norm", "tokens", "validation_loss")
    # Three pairs in batches of two: in the last one a process has nothing to do.
    for ours, theirs in zip(shared, alone, strict=True):
        assert {n: ours[n] for n in names if n in theirs} == pytest.approx(
            {n: theirs[n] for n in names if n in theirs}, rel=1e-5
        )
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    # Sums in another order: Adam may turn a gradient that is all rounding into a whole step.
    assert max(float((first[k] - second[k]).abs().max()) for k in first) < 2.1e-3


def test_a_mistake_told_by_the_processes_is_the_users(train: Callable[..., Trained], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="nothing to train on"):
        train(tmp_path / "x", TWO, max_tokens=2)


def test_options_that_accelerate_does_not_know_are_told(train: Callable[..., Trained], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="unrecognized arguments: --no-such-option"):
        train(tmp_path / "x", ("--no-such-option",))
