"""A training that was interrupted, and one that is measured while it goes on."""

import itertools
import math
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.models import (
    chat_tokenizer,
    load_model,
    sequence_log_probs,
)
from dadpo_bench.types import Example, Job
from tests.tiny import build_tiny_model
from tests.trainers.jobs import FP32, TIMES, Stopped, largest_difference, train
from trainers import checkpoint


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


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dadpo", {"select": "last"}),
        ("dadpo", {"validations": 3, "select": "best", "learning_rate": 0.05}),
        ("on_policy_kd", {"max_new_tokens": 16}),
    ],
)
def test_a_training_told_to_stop_before_any_step_is_saved_there(
    method: str, settings: dict[str, Any], tiny: Path, teacher: Path, examples: list[Example], tmp_path: Path
) -> None:
    def job(output: Path, asks: int) -> Job:
        asked = itertools.count(1)
        return Job(
            tiny,
            output,
            examples[2:],
            {"batch_size": 2, "epochs": 2, **settings},
            seed=3,
            teacher=teacher,
            sampled_ids=False,
            validation=examples[:2],
            state=tmp_path / f"state of {output.name}",
            stop=lambda: next(asked) == asks,
        )

    trained = registry.methods.load(method).train
    steps = trained(job(tmp_path / "whole", 0)).steps
    for stop in (1, 2, 2):
        with pytest.raises(KeyboardInterrupt):
            trained(job(tmp_path / "parts", stop))
        shutil.rmtree(tmp_path / "parts", ignore_errors=True)
    assert trained(job(tmp_path / "parts", 0)).steps == steps
    assert [path.name for path in (tmp_path / "state of parts").iterdir()] == ["step-2"]
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") == 0


def test_saving_a_model_whose_head_is_its_embedding_prints_nothing(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0)
    tied = build_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    bare = [example.model_copy(update={"signals": {}}) for example in examples]
    train("sft", tied, tmp_path / "whole", bare)
    with pytest.raises(Stopped):
        train("sft", tied, tmp_path / "parts", bare, state=tmp_path / "state", stop=3)
    assert not caplog.records
    train("sft", tied, tmp_path / "parts", bare, state=tmp_path / "state")
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") == 0


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


def test_a_disk_that_fills_up_while_the_state_is_saved_stops_no_training(
    tiny: Path, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_SECONDS", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "cannot save" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    job = Job(
        tiny, tmp_path / "a", examples, {"batch_size": 2}, seed=3, sampled_ids=False, state=tmp_path / "state", say=say
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # a file may not grow beyond: as good as a full disk
    try:
        registry.methods.load("sft").train(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len([line for line in said if "cannot save the training's state" in line]) == 1
    train("sft", tiny, tmp_path / "b", examples, learning_rate=1e-5)
    assert largest_difference(tmp_path / "a", tmp_path / "b") == 0


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
