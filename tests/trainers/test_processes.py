"""Trainings in processes of their own: two of them, over gloo on the CPU, give the losses of one."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate import Accelerator
from accelerate.utils import DistributedType

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Checkpoint, Example, Job
from dadpo_bench.worker import write_job
from tests.trainers.jobs import largest_difference

TWO = shlex.split(
    "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
)
"""Without a GPU accelerate's `--multi_gpu` means gloo on the CPU; `--cpu` alone would start one process."""
FSDP2 = Path(__file__).parents[2] / "examples" / "accelerate" / "fsdp2.yaml"
SHARDED = Path(__file__).with_name("sharded.py")
Trained = tuple[Checkpoint, list[dict[str, Any]], list[str]]
Told = tuple[Job, list[dict[str, Any]], list[str]]


@pytest.fixture
def job(tiny: Path, examples: list[Example]) -> Callable[..., Told]:
    """`job(output, **settings)` of dadpo: three pairs in batches of two, so that in the last one a process is idle."""

    def make(output: Path, state: Path | None = None, **settings: Any) -> Told:
        metrics: list[dict[str, Any]] = []
        said: list[str] = []
        made = Job(
            start=tiny,
            output=output,
            examples=examples[:3],
            settings={"learning_rate": 1e-3, "batch_size": 2, "micro_batch_tokens": 1, **settings},
            seed=3,
            teacher=tiny,
            sampled_ids=False,
            validation=examples[:1],
            state=state,
            report=lambda step, steps, values: metrics.append(dict(values)),
            say=said.append,
        )
        return made, metrics, said

    return make


@pytest.fixture
def train(job: Callable[..., Told]) -> Callable[..., Trained]:
    """`train(output, launch, **settings)`: the checkpoint, the metrics, what was said."""

    def run(output: Path, launch: Sequence[str] = (), method: str = "dadpo", **settings: Any) -> Trained:
        made, metrics, said = job(output, **settings)
        return LocalEngine(launch).train(method, made), metrics, said

    return run


def test_two_processes_give_the_losses_and_weights_of_one(train: Callable[..., Trained], tmp_path: Path) -> None:
    one, alone, said = train(tmp_path / "one")
    two, shared, said_by_two = train(tmp_path / "two", TWO)
    assert said_by_two == [*said, "2 processes"]
    assert (two.steps, two.tokens) == (one.steps, one.tokens)
    names = ("loss", "chosen_log_prob", "margin", "accuracy", "grad_norm", "tokens", "validation_loss")
    for ours, theirs in zip(shared, alone, strict=True):
        known = [n for n in names if n in theirs]
        assert [ours[n] for n in known] == pytest.approx([theirs[n] for n in known], rel=1e-5)
    # Sums in another order: Adam may turn a gradient that is all rounding into a whole step.
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 2.1e-3


def test_a_model_sharded_over_two_processes_trains_saves_and_goes_on_as_a_whole_one(
    job: Callable[..., Told], train: Callable[..., Trained], tmp_path: Path
) -> None:
    _, alone, _ = train(tmp_path / "one")
    write_job(tmp_path / "job.json", "dadpo", job(tmp_path / "two", tmp_path / "state")[0])
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", SHARDED, tmp_path / "job.json"]
    command = [sys.executable, "-m", *map(str, launch)]

    def run() -> list[dict[str, Any]]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told = tmp_path / "job.told"
        lines = told.read_text().splitlines()
        told.unlink()
        return [json.loads(line) for line in lines]

    losses = [told["metrics"]["loss"] for told in run() if told["kind"] == "report" and told["step"]]
    assert losses == pytest.approx([step["loss"] for step in alone[1:]], rel=1e-5)
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 2.1e-3
    shutil.move(tmp_path / "two", tmp_path / "first")
    assert "goes on behind step 2" in [told.get("line") for told in run()]
    assert largest_difference(tmp_path / "first", tmp_path / "two") == 0


@pytest.mark.gpu
def test_a_training_that_all_gpus_share_gives_the_losses_and_weights_of_one(
    gpus: int, train: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")  # as the examples' signals
    one = shlex.split("--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no")
    _, alone, _ = train(tmp_path / "one", one)
    _, shared, _ = train(tmp_path / "all", ["--config_file", str(FSDP2), "--num_processes", str(gpus)])
    assert [step["loss"] for step in shared[1:]] == pytest.approx([step["loss"] for step in alone[1:]], rel=1e-5)
    assert largest_difference(tmp_path / "one", tmp_path / "all") < 2.1e-3


def test_a_mistake_told_by_the_processes_is_the_users(train: Callable[..., Trained], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="nothing to train on"):
        train(tmp_path / "x", TWO, max_tokens=2)


def test_an_error_of_the_processes_is_told_by_its_name(train: Callable[..., Trained], tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file where the checkpoint should be")
    with pytest.raises(WorkError, match="FileExistsError"):
        train(tmp_path / "x", TWO)


def test_interrupted_processes_leave_nobody_running(job: Callable[..., Told], tmp_path: Path) -> None:
    def stop(step: int, steps: int, metrics: Any) -> None:
        raise KeyboardInterrupt

    made = replace(job(tmp_path / "x", epochs=500)[0], report=stop)
    with pytest.raises(KeyboardInterrupt):
        LocalEngine(TWO).train("dadpo", made)
    workers = [p for p in psutil.process_iter(["cmdline"]) if "dadpo_bench.worker" in (p.info["cmdline"] or [])]
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def test_kd_from_cached_logits_trains_in_two_processes(job: Callable[..., Told], teacher: Path, tmp_path: Path) -> None:
    made, metrics, _ = job(tmp_path / "x")
    kd = {"learning_rate": 1e-3, "batch_size": 2, "cached_top_k": 8}
    made = replace(made, settings=kd, teacher=teacher, cache=tmp_path / "cache")
    LocalEngine(TWO).train("kd", made)
    assert len(metrics) == 3
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_two_processes_draw_their_shares_of_the_rollouts_and_learn_from_all(
    job: Callable[..., Told], teacher: Path, tmp_path: Path
) -> None:
    losses = []
    for name, launch in (("one", ()), ("two", TWO)):
        made, metrics, _ = job(tmp_path / name, max_new_tokens=8)
        LocalEngine(launch).train("on_policy_kd", replace(made, teacher=teacher))
        losses.append([m[k] for m in metrics for k in ("loss", "validation_loss") if k in m])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("how", "method", "settings", "why"),
    [
        ("DEEPSPEED", "dadpo", {}, "behind every micro-batch: shard by FSDP2"),
        ("FSDP", "dadpo", {"lora": {"rank": 2}}, "lora under FSDP"),
        ("FSDP", "on_policy_kd", {}, "cannot draw responses"),
    ],
)
def test_what_sharding_would_spoil_is_refused_before_the_student_is_loaded(
    how: str,
    method: str,
    settings: dict[str, Any],
    why: str,
    train: Callable[..., Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[how])
    with pytest.raises(UserError, match=why):
        train(tmp_path / "x", method=method, **settings)


def test_options_that_accelerate_does_not_know_are_told(train: Callable[..., Trained], tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="unrecognized arguments: --no-such-option"):
        train(tmp_path / "x", ("--no-such-option",))
