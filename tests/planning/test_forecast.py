"""Bytes, hours and advice on a machine, by one arithmetic."""

from dataclasses import replace

import pytest

from dadpo_bench.planning import GPUS, ROOM, Load, Rollouts, Setting, Train, forecast_of
from dadpo_bench.planning.forecast import memory_of, seconds_of
from tests.planning.paper import PAPER, paper_loads, paper_shapes

H100 = Setting(GPUS["h100-80gb"], 1, 0.4)


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_is_planned_and_what_helps_makes_it_fit(name: str) -> None:
    shapes, found = paper_shapes(name), paper_loads(name)
    setting = Setting(GPUS["rtx4090-24gb"], 1, 0.4)
    forecasts = {key: forecast_of(load, shapes, setting) for key, load in found.items()}
    assert not forecasts["train/dadpo"].fits
    assert forecasts["train/kd"].memory.weights > forecasts["train/dadpo"].memory.weights
    assert all(f.flops > 0 and f.hours > 0 for key, f in forecasts.items() if not key.startswith("judge"))
    for key, planned in forecasts.items():
        assert planned.fits == (planned.memory.total <= ROOM * 24e9)
        for remedy in planned.remedies:
            option, _, value = remedy.partition(" ")
            if option == "--gpus":
                changed = setting._replace(gpus=int(value))
            elif option == "--gpu":
                changed = setting._replace(hardware=GPUS[value])
            else:
                continue
            assert forecast_of(found[key], shapes, changed).fits, remedy


def test_a_smaller_batch_or_micro_batch_is_advised_where_that_is_enough() -> None:
    shapes, found = paper_shapes("qwen2.5-1.5b-from-7b"), paper_loads("qwen2.5-1.5b-from-7b")

    def advice(load: Load) -> tuple[str, ...]:
        room = memory_of(load, shapes, H100).total * 0.98 / ROOM
        return forecast_of(load, shapes, H100._replace(hardware=H100.hardware._replace(memory=room))).remedies

    assert any(r.startswith("methods.kd.micro_batch_tokens=") for r in advice(found["train/kd"]))
    assert "dadpo instead of kd: it trains without the teacher in memory" in advice(found["train/kd"])
    assert "teacher_sampling.batch_size=16" in advice(found["teacher-responses/teacher"])


def test_memory_falls_with_gpus_and_rises_with_the_micro_batch() -> None:
    shapes, load = paper_shapes("vicuna-7b-pruned20"), paper_loads("vicuna-7b-pruned20")["train/dadpo"]
    assert isinstance(load, Train)

    def total(gpus: int, tokens: int) -> float:
        return memory_of(replace(load, micro_batch_tokens=tokens), shapes, H100._replace(gpus=gpus)).total

    assert total(4, 1536) < total(2, 1536) < total(1, 1536) < total(1, 8192)


def test_rollouts_that_do_not_fit_are_advised_to_be_shorter_or_trained_by_adapters() -> None:
    shapes = paper_shapes("vicuna-7b-pruned20")
    load = paper_loads("vicuna-7b-pruned20", "on_policy_kd")["train/on_policy_kd's rollouts"]
    assert isinstance(load, Rollouts)
    load = replace(load, limit=4096)
    hardware = H100.hardware._replace(memory=memory_of(load, shapes, H100).total * 0.98 / ROOM)
    advice = forecast_of(load, shapes, H100._replace(hardware=hardware)).remedies
    for remedy in ("max_new_tokens=", "lora={rank: 16}: adapters are trained, not all weights"):
        assert any(r.startswith(f"methods.on_policy_kd.{remedy}") for r in advice)
    assert "--gpus 2" in advice  # each draws half of the batch


def test_frozen_weights_are_cast_for_every_token_of_a_rollout() -> None:
    shapes = paper_shapes("vicuna-7b-pruned20")
    load = paper_loads("vicuna-7b-pruned20", "on_policy_kd")["train/on_policy_kd's rollouts"]
    assert isinstance(load, Rollouts)
    adapted = replace(load, training=replace(load.training, rank=16))
    # Four bytes read, two written, two read again in place of two, of weights alone.
    assert 3.5 < seconds_of(adapted, shapes, H100) / seconds_of(load, shapes, H100) < 4


def test_what_the_trainer_refuses_to_shard_is_planned_whole_on_each_gpu() -> None:
    shapes = paper_shapes("vicuna-7b-pruned20")
    whole = paper_loads("vicuna-7b-pruned20")["train/dadpo"]
    drawing = paper_loads("vicuna-7b-pruned20", "on_policy_kd")
    learning, rollouts = drawing["train/on_policy_kd"], drawing["train/on_policy_kd's rollouts"]
    assert isinstance(whole, Train)
    for load in (replace(whole, rank=16), learning, rollouts):
        one, four = (memory_of(load, shapes, H100._replace(gpus=gpus)) for gpus in (1, 4))
        assert (four.weights, four.optimiser) == (one.weights, one.optimiser)
        alone, together = (seconds_of(load, shapes, H100._replace(gpus=gpus)) for gpus in (1, 4))
        assert alone / 4 <= together < alone  # of a rollout every GPU reads the weights for every token
