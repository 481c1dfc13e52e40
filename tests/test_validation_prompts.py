"""`prompts.validation`: prompts that are measured while training and never learnt from."""

import json
from pathlib import Path

import pytest

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError
from dadpo_bench.pipeline import run
from dadpo_bench.plan import Plan, make_plan
from dadpo_bench.progress import silent
from dadpo_bench.recipe import essence, load_recipe
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import Store, open_store, schema
from dadpo_bench.types import content_key


def plan(recipe: Path, *changes: str) -> Plan:
    return make_plan(load_recipe(str(recipe), list(changes)), ["dadpo"], 1)


def trained(recipe: Path, store: Store, *changes: str) -> None:
    run(Bench(store, LocalEngine(), silent()), plan(recipe, *changes), {}, Stage.train)


def test_a_files_validation_prompts_are_those_behind_the_training_ones(tiny_recipe: Path) -> None:
    chosen = plan(tiny_recipe, "prompts.train=4", "prompts.validation=2")
    assert [p.id for p in chosen.train_task.prompts] == ["t0", "t1", "t2", "t3"]
    assert chosen.validation_task is not None
    assert [p.id for p in chosen.validation_task.prompts] == ["t4", "t5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["prompts.validation=1"], "1 asked for, '.*training.jsonl' has 0 left"),
        (["prompts.train=4", "prompts.validation=3"], "3 asked for, '.*training.jsonl' has 2 left"),
        (["methods.dadpo.select=best"], "set prompts.validation"),
        (["prompts.train=4", "prompts.validation=-1"], "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_validated_on_is_refused_before_any_work(
    changes: list[str], message: str, tiny_recipe: Path
) -> None:
    with pytest.raises(UserError, match=message):
        plan(tiny_recipe, *changes)


def test_a_held_out_prompt_among_the_validation_prompts_is_refused(tiny_recipe: Path) -> None:
    training = tiny_recipe.with_name("training.jsonl")
    training.write_text(training.read_text() + json.dumps({"id": "leak", "turns": ["Tea?"]}) + "\n")
    with pytest.raises(UserError, match="'held-out' shares 1 prompt with the validation prompts"):
        plan(tiny_recipe, "prompts.train=6", "prompts.validation=1")


def test_learning_two_and_measuring_one_is_another_training_than_the_reverse(tiny_recipe: Path, tmp_path: Path) -> None:
    keys = []
    for learnt, measured in ((2, 1), (1, 2)):
        store = open_store(str(tmp_path / f"{learnt}.sqlite3"))
        greedy = ("teacher_sampling.temperature=0", "methods.sft.select=best")
        trained(tiny_recipe, store, f"prompts.train={learnt}", f"prompts.validation={measured}", *greedy)
        with store.read() as session:
            keys.append({d.key for d in session.query(schema.Derivation)})
    assert not keys[0] & keys[1]


def test_how_often_validation_is_measured_makes_no_other_training_unless_it_chooses(tiny_recipe: Path) -> None:
    recipe = load_recipe(str(tiny_recipe))

    def key(**settings: object) -> object:
        return content_key(essence({**recipe.method_settings("dadpo"), **settings}))

    assert key(validations=5) == key()
    assert key(validations=5, select="best") != key(select="best")


def test_the_store_holds_validation_before_the_first_step_and_the_weights_do_not_know_of_it(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    plain, measured = (open_store(str(tmp_path / f"{name}.sqlite3")) for name in ("plain", "measured"))
    trained(tiny_recipe, plain, "prompts.train=4")
    trained(tiny_recipe, measured, "prompts.train=4", "prompts.validation=2")
    models = []
    for store in (plain, measured):
        with store.read() as session:
            models.append({d.key: d.model_key for d in session.query(schema.Derivation)})
            first = {m.derivation_key: m.values for m in session.query(schema.Metric).filter_by(step=0)}
    assert models[0] == models[1]  # keys and weights
    assert len(first) == 2
    assert all("validation_loss" in values for values in first.values())
    assert sum("validation_margin" in values for values in first.values()) == 1
