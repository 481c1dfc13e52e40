"""What a run computes: every kind of work is counted, each once."""

import pytest

from dadpo_bench.planning import FILLED, Load, Rollouts, Score, Train
from tests.planning.paper import paper_loads

DEFAULT = "smollm2-135m-pruned20"  # on 96 prompts and 16 for validation, which is measured three times


def rollouts(loads: dict[str, Load]) -> list[Rollouts]:
    return [load for load in loads.values() if isinstance(load, Rollouts)]


def test_rollouts_are_counted_for_every_example_of_each_epoch_and_each_time_validation_is_measured() -> None:
    loads = paper_loads(DEFAULT, changes=("methods.on_policy_kd.epochs=2",), seeds=3)
    learning, measuring = rollouts(loads)
    assert (learning.who, learning.stage) == ("on_policy_kd's rollouts", "train")
    assert learning.examples == 2 * 96 * 3
    assert learning.batch_size == 4  # the recipe's
    assert learning.tokens == int(learning.examples * FILLED * 64)
    assert measuring.examples == 3 * 16 * 3
    assert measuring.batch_size == 16


def test_only_what_draws_has_rollouts_and_without_validation_they_are_those_of_the_steps() -> None:
    assert not rollouts(paper_loads("vicuna-7b-pruned20"))
    (learning,) = rollouts(paper_loads("vicuna-7b-pruned20", "on_policy_kd"))
    assert learning.batch_size == 8


def test_what_learns_from_rollouts_learns_from_their_tokens_not_the_teachers() -> None:
    loads = paper_loads("vicuna-7b-pruned20", "on_policy_kd", changes=("methods.kd.epochs=1",))
    own, taught = loads["train/on_policy_kd"], loads["train/kd"]
    assert isinstance(own, Train)
    assert isinstance(taught, Train)
    assert (own.limit, taught.limit) == (64, 512)
    assert own.targets == pytest.approx(taught.targets * 64 / 512, abs=1)


@pytest.mark.parametrize(
    ("judge", "changes", "teachers"),
    [
        ("pmi", (), True),
        ("pmi", ("judge_settings.model=/some/model",), False),
        ("longer", (), False),
        ("reward:/some/model", (), False),
        ("chat-score:m", (), False),
    ],
)
def test_a_judge_is_counted_as_the_teachers_passes_where_it_is_the_teacher(
    judge: str, changes: tuple[str, ...], teachers: bool
) -> None:
    loads = paper_loads(DEFAULT, changes=changes, judge=judge)
    assert isinstance(loads[f"judge/{judge.partition(':')[0]}"], Score) is teachers
