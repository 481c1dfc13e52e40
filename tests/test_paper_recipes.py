"""The paper's two settings: planned without any weights, and run by the same code on tiny random models."""

from pathlib import Path

import pytest
from sqlalchemy import select
from transformers import AutoModelForCausalLM

from dadpo_bench.engine import LocalEngine
from dadpo_bench.pipeline import run
from dadpo_bench.plan import make_plan
from dadpo_bench.planning import estimate
from dadpo_bench.progress import silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import Store, open_store, schema
from tests.tiny import build_tiny_model

RECIPES = ("vicuna-7b-pruned20", "qwen2.5-1.5b-from-7b")
SMALL = (
    "prompts.train=3",
    "teacher_sampling.max_new_tokens=4",
    "student_sampling.max_new_tokens=4",
    "evaluation.sampling.max_new_tokens=4",
    "evaluation.canary_prompts=2",
    "evaluation.kl_prompts=1",
    "tasks.assistance.prompts=2",
    "tasks.general.prompts=2",
    "judge=longer",
    "judge_settings={}",
)


@pytest.mark.parametrize("name", RECIPES)
def test_a_paper_recipe_is_planned_without_weights_or_network(name: str, tmp_path: Path) -> None:
    costs = estimate(make_plan(load_recipe(name), ["dadpo"], 1), str(tmp_path / "none.sqlite3"))
    by_stage = {cost.stage: cost for cost in costs}
    assert by_stage["teacher-responses"].items == 252
    assert by_stage["teacher-responses"].tokens > 252 * 100
    assert all(cost.seconds is None and not cost.done for cost in costs)


def run_small(name: str, changes: list[str], folder: Path) -> Store:
    store = open_store(str(folder / "local.sqlite3"))
    plan = make_plan(load_recipe(name, [*SMALL, *changes]), ["kd", "dpo", "dpo-matched", "dadpo"], 1)
    run(Bench(store, LocalEngine(), silent()), plan, {})
    return store


def contestants(store: Store) -> set[str]:
    with store.read() as session:
        return set(session.scalars(select(schema.Score.contestant).where(schema.Score.baseline == "teacher")))


def test_the_pruned_vicuna_setting_runs_on_a_tiny_llama_without_a_template_of_its_own(tmp_path: Path) -> None:
    teacher = build_tiny_model(tmp_path / "teacher", hidden=96, chat_template=None)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    one_block = 2 * 3 * 96 * 64 / sum(p.numel() for p in model.parameters())
    changes = [f"teacher.model={teacher}", f"student.prune.ratio={one_block:.4f}"]
    store = run_small("vicuna-7b-pruned20", changes, tmp_path)
    assert contestants(store) == {"teacher", "student", "sft", "kd", "dpo", "dpo-matched", "dadpo"}


def test_the_qwen_setting_runs_on_tiny_qwens(tmp_path: Path) -> None:
    teacher, student = (
        build_tiny_model(tmp_path / name, hidden=hidden, architecture="Qwen2", seed=hidden)
        for name, hidden in (("teacher", 64), ("student", 32))
    )
    changes = [f"teacher.model={teacher}", f"student.model={student}"]
    store = run_small("qwen2.5-1.5b-from-7b", changes, tmp_path)
    assert contestants(store) == {"teacher", "student", "sft", "kd", "dpo", "dpo-matched", "dadpo"}
