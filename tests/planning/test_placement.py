"""A run on machines under Ray: what is cut how, which place it gets, and how long that takes."""

from itertools import groupby

import pytest

from dadpo_bench.errors import UserError
from dadpo_bench.plan import Plan, make_plan
from dadpo_bench.planning import (
    FILLED,
    GPUS,
    Ask,
    Cluster,
    Placed,
    Rollouts,
    Sample,
    Setting,
    Step,
    Train,
    cluster_of,
    loads,
    makespan,
    place,
    steps,
)
from dadpo_bench.planning.forecast import forecast_of, seconds_of
from dadpo_bench.recipe import EngineChoice, load_recipe
from tests.planning.paper import paper_loads, paper_shapes

EMBEDDED = "smollm2-135m-pruned20"  # 96 prompts and 16 for validation, batches of 24
VICUNA = "vicuna-7b-pruned20"  # 252 prompts, batches of 32
H100 = Setting(GPUS["h100-80gb"], 1, 0.4)


def planned(name: str, *further: str, seeds: int = 1, judge: str | None = None, changes: tuple[str, ...] = ()) -> Plan:
    recipe = load_recipe(name, changes, judge)
    return make_plan(recipe, [*recipe.methods, *further], seeds)


def cut(plan: Plan) -> dict[str, Step]:
    return {f"{step.stage}/{', '.join(step.who)}": step for step in steps(plan)}


def sizes(step: Step) -> list[list[int]]:
    """Sequences of every item, call by call."""
    return [[sum(load.examples for load in item) for item in call] for call in step.calls]


def placed(step: Step, nodes: int, gpus: int, wide: int = 1, **engine: float) -> Placed:
    cluster = cluster_of(EngineChoice.model_validate({"gpus_per_training": wide, **engine}), nodes, gpus)
    (found,) = place([step], cluster, paper_shapes(VICUNA), H100._replace(gpus=wide)).steps
    return found


@pytest.mark.parametrize(
    ("seconds", "places", "expected"),
    [
        ([2, 2, 2], 4, 2),
        ([2, 2, 2], 2, 4),  # the third is alone in its round
        ([3, 1, 1, 2], 2, 4),  # 3 | 1, 1, 2
        ([1, 1, 3], 2, 4),  # 1, 3 | 1: the long one comes last
        ([3, 1, 1], 2, 3),  # 3 | 1, 1
        ([], 2, 0),
    ],
)
def test_each_takes_the_place_that_is_free_first(seconds: list[float], places: int, expected: float) -> None:
    assert makespan(seconds, places) == expected


def test_learning_is_cut_into_batches_and_sixteen_pairs_of_a_split_and_a_seed_in_one_go() -> None:
    found = cut(planned(EMBEDDED, seeds=2))
    assert sizes(found["teacher-responses/teacher"]) == [[24] * 4 + [16]]  # once for all seeds
    assert sizes(found["student-responses/sft"]) == [([24] * 4 + [16]) * 2]
    assert sizes(found["signals/teacher"]) == [([16] * 6 + [16]) * 2]


def test_everybodys_answers_are_one_call_and_a_divergence_is_an_item_of_a_model_and_a_task() -> None:
    plan = planned(VICUNA, seeds=2)
    found = cut(plan)
    answers, samples = sizes(found["responses/teacher, student"])
    models = 1 + 1 + 5 * 2  # teacher, bare student, five methods of two seeds
    assert samples == [24, 8] * 2 * models  # 32 of each of two tasks, in batches of 24
    assert sum(answers) == sum(len(p.turns) for task in plan.tasks for p in task.prompts) * models
    assert sizes(found["responses/KL"]) == [[32] * 2 * 2 * (models - 1)]  # two tasks, from and to the teacher


def test_a_batch_of_two_turns_is_drawn_twice() -> None:
    (answers, _) = cut(planned(EMBEDDED))["responses/teacher, student"].calls
    assert {len(item) for item in answers} == {1, 2}
    assert all(isinstance(load, Sample) and load.examples == load.batch_size for item in answers for load in item)


@pytest.mark.parametrize("name", [EMBEDDED, VICUNA])
def test_the_items_are_the_loads_again_nothing_lost_and_nothing_twice(name: str) -> None:
    plan = planned(name, "on_policy_kd", seeds=3)
    for step in steps(plan):
        parts = [load for call in step.calls for item in call for load in item]
        for who, whole in groupby(loads(plan), lambda load: (load.stage, load.who)):
            if cut_up := [part.examples for part in parts if (part.stage, part.who) == who]:
                assert sum(cut_up) == sum(load.examples for load in whole)
    assert [load for step in steps(plan) for load in step.loads] == list(loads(plan))


def test_a_training_has_its_rollouts_and_all_methods_of_a_seed_come_before_the_next() -> None:
    (step,) = (step for step in steps(planned(EMBEDDED, seeds=2)) if step.stage == "train")
    (trainings,) = step.calls
    names = ["kd", "dpo", "dpo-matched", "dadpo", "dpkd", "distillm2", "on_policy_kd"]
    assert [item[0].who for item in trainings] == names * 2
    assert [type(load) for load in trainings[6]] == [Train, Rollouts, Rollouts]
    assert [load.examples for load in trainings[6][1:]] == [96, 3 * 16]  # of the prompts, and validation three times


@pytest.mark.parametrize(
    ("judge", "changes", "where", "asked"),
    [
        ("pmi", (), "workers", False),
        ("reward:/some/model", (), "workers", True),
        ("longer", (), "driver", True),
        ("chat:m", (), "asked", True),
        ("chat-score:m", (), "asked", True),
        ("chat:/some/model", ("judge_settings.backend=local",), "workers", True),
        ("chat-score:/some/model", ("judge_settings.backend=local",), "workers", True),
    ],
)
def test_a_judge_is_where_its_model_may_be(judge: str, changes: tuple[str, ...], where: str, asked: bool) -> None:
    *_, step = steps(planned(EMBEDDED, judge=judge, changes=changes))
    assert step.where == where
    assert isinstance(step.loads[0], Ask) == asked
    assert (placed(step, 1, 8).time is None) == asked


def test_ratings_are_shared_out_by_eight() -> None:
    *_, step = steps(planned(EMBEDDED))
    (load,) = step.loads
    assert len(step.calls[0]) == -(-load.items // 8)


def test_eight_batches_on_six_workers_take_two_rounds() -> None:
    step = cut(planned(VICUNA))["teacher-responses/teacher"]
    assert sizes(step) == [[32] * 7 + [28]]
    found = placed(step, 2, 3)
    assert (found.items, found.side_by_side) == (8, 6)
    # Two bytes of every weight but the embedding's, and of the keys and values of 32 layers behind half of a reply, for
    # each of 512 tokens, at 0.4 of 3.35 TB/s.
    weights = 6_738_415_616 - 32000 * 4096
    held = 32 * (step.loads[0].prompt + FILLED * 512 / 2) * 2 * 32 * 4096
    batch = 512 * 2 * (weights + held) / (0.4 * 3.35e12)
    assert found.time is not None
    assert found.time.hours == pytest.approx(2 * batch / 3600)
    assert found.time.gpu_hours == pytest.approx(6 * 2 * batch / 3600)
    assert 7 / 12 < found.time.busy_gpu_hours / found.time.gpu_hours < 8 / 12  # the last batch is a little smaller


def test_trainings_go_in_their_order_to_the_gpus_that_are_free_first() -> None:
    step = cut(planned(VICUNA, seeds=2))["train/kd, dpo, dpo-matched, dadpo"]
    shapes, found = paper_shapes(VICUNA), paper_loads(VICUNA)
    kd, pairs = (seconds_of(found[f"train/{name}"], shapes, H100) for name in ("kd", "dadpo"))
    assert 2 * pairs < kd < 2.5 * pairs
    # kd and three on pairs of the first seed, then of the second: kd, kd, pairs | pairs × 5
    alone, together = placed(step, 1, 2), placed(step, 2, 8, wide=8)
    assert alone.time is not None
    assert alone.time.hours == pytest.approx((2 * kd + pairs) / 3600)
    assert alone.time.busy_gpu_hours == pytest.approx((2 * kd + 6 * pairs) / 3600)
    assert (alone.side_by_side, together.side_by_side) == (2, 2)
    assert together.time is not None
    assert together.time.hours == pytest.approx(alone.time.hours / 8)  # each shared out over eight
    assert together.time.busy_gpu_hours == pytest.approx(alone.time.busy_gpu_hours)


def test_on_one_gpu_every_stage_takes_as_long_as_its_loads() -> None:
    plan, shapes = planned(VICUNA, "on_policy_kd", seeds=2), paper_shapes(VICUNA)
    cluster = cluster_of(EngineChoice(), 1, 1)
    for stage, group in groupby(steps(plan), lambda step: step.stage):
        found = place(list(group), cluster, shapes, H100).steps
        here = sum(one.time.hours for one in found if one.time is not None)
        alone = sum(forecast_of(load, shapes, H100).hours for load in loads(plan) if load.stage == stage)
        assert here == pytest.approx(alone, rel=0.01), stage


def test_pruning_leaves_all_gpus_idle_but_one() -> None:
    found = placed(cut(planned(VICUNA))["models/student"], 4, 8)
    assert found.time is not None
    assert found.time.gpu_hours == pytest.approx(32 * found.time.busy_gpu_hours)


@pytest.mark.parametrize(
    ("engine", "workers", "trainings"),
    [
        ({}, 32, 32),
        ({"workers": 5}, 5, 32),
        ({"workers": 64}, 32, 32),
        ({"gpus_per_worker": 3}, 4 * 2, 32),  # two GPUs of each machine are left over
        ({"gpus_per_training": 8}, 32, 4),
        ({"gpus_per_training": 3}, 32, 10),
        ({"gpus_per_training": 16}, 32, 2),
    ],
)
def test_as_many_have_place_as_their_gpus_allow(engine: dict[str, int], workers: int, trainings: int) -> None:
    found = cluster_of(EngineChoice.model_validate(engine), 4, 8)
    assert (found.workers, found.trainings) == (workers, trainings)


@pytest.mark.parametrize(("wide", "crossing"), [(1, False), (3, True), (4, False), (8, False), (16, True)])
def test_a_training_crosses_the_network_where_no_machine_holds_it(wide: int, crossing: bool) -> None:
    assert Cluster(4, 8, 32, wide).crossing is crossing


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"gpus_per_training": 33}, "all machines together have 32"),
        ({"gpus_per_training": 0}, "trainings on GPUs"),
        ({"gpus_per_worker": 9}, "a worker is on one machine, and that has 8"),
        ({"gpus_per_worker": 0}, "whole GPUs"),
        ({"gpus_per_worker": 0.5}, "whole GPUs"),
    ],
)
def test_what_has_no_place_is_refused(engine: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        cluster_of(EngineChoice.model_validate(engine), 4, 8)
