"""Recipes: YAML with `--set` on top, every value typed, and a protocol key that says what may be compared."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench.errors import UserError
from dadpo_bench.pipeline import make_plan
from dadpo_bench.recipe import Recipe, load_recipe, shipped


def protocol_key(*changes: str) -> str:
    return make_plan(load_recipe(changes=changes), ["sft"], 1).protocol_key


def get(recipe: Recipe, key: str) -> Any:
    value: Any = recipe.model_dump()
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("prompts.train=7", 7),
        ("prompts.train=null", None),
        ("teacher.model=org/name", "org/name"),
        ("evaluation.sampling.temperature=0.5", 0.5),
        ("methods.sft.learning_rate=1e-3", 1e-3),
        ("name=a=b", "a=b"),
        ("judge_settings={model: x, n: 3}", {"model": "x", "n": 3}),
    ],
)
def test_a_set_value_reaches_the_recipe_with_its_type(change: str, value: object) -> None:
    recipe = load_recipe(changes=[change])
    key = change.partition("=")[0]
    found = recipe.method_settings("sft")["learning_rate"] if key.startswith("methods") else get(recipe, key)
    assert found == value
    assert type(found) is type(value)


@given(st.integers(1, 10**6), st.floats(0, 2, allow_nan=False))
def test_any_number_set_is_the_number_read(train: int, beta: float) -> None:
    recipe = load_recipe(changes=[f"prompts.train={train}", f"methods.dadpo.beta_teacher={beta!r}"])
    assert recipe.prompts.train == train
    assert recipe.method_settings("dadpo")["beta_teacher"] == beta


@given(st.text(max_size=30))
def test_any_other_change_is_taken_or_refused_as_a_users_mistake(change: str) -> None:
    with suppress(UserError):
        load_recipe(changes=[change])


def test_the_last_of_two_changes_holds() -> None:
    assert load_recipe(changes=["seed=1", "seed=2"]).seed == 2


def test_a_contestant_can_be_added_by_set() -> None:
    recipe = load_recipe(changes=["methods.strong.method=dadpo", "methods.strong.beta_teacher=0.9"])
    assert recipe.method_settings("strong")["beta_teacher"] == 0.9
    assert recipe.method_settings("strong")["method"] == "dadpo"


def test_settings_are_complete_so_that_a_default_written_out_changes_no_key() -> None:
    written = [f"methods.sft.{k}={v}" for k, v in load_recipe().method_settings("sft").items()]
    assert protocol_key(*written) == protocol_key()


@pytest.mark.parametrize(
    "change",
    [
        "methods.dadpo.beta_teacher=0.25",
        "methods.extra.method=dpo",
        "judge=longer",
        "seed=5",
        "summary=another",
        "name=another",
        "tasks.assistance.domain=out",
    ],
)
def test_what_contestants_do_not_share_does_not_part_them(change: str) -> None:
    assert protocol_key(change) == protocol_key()


@pytest.mark.parametrize(
    "change",
    [
        "prompts.train=7",
        "teacher_sampling.temperature=0.5",
        "student_sampling.max_new_tokens=5",
        "evaluation.sampling.temperature=0.5",
        "student.prune.ratio=0.1",
        "teacher.model=other",
        "methods.sft.epochs=9",
        "tasks.general.prompts=3",
    ],
)
def test_what_contestants_share_parts_them(change: str) -> None:
    assert protocol_key(change) != protocol_key()


@pytest.mark.parametrize(
    ("change", "near"),
    [
        ("teecher.model=x", "teacher"),
        ("teacher.modle=x", "model"),
        ("student.prune.ratoi=0.1", "ratio"),
        ("evaluation.sampling.temprature=1", "temperature"),
        ("methods.dadpo.beta_techer=1", "beta_teacher"),
    ],
)
def test_a_mistyped_setting_is_answered_with_the_nearest(change: str, near: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{near}'"):
        load_recipe(changes=[change])


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert {"sft", "kd", "dpo", "dpo-matched", "dadpo"} <= set(recipe.methods)


def test_dpo_matched_has_the_total_strength_of_dadpo() -> None:
    for name in shipped():
        recipe = load_recipe(name)
        matched, ours = recipe.method_settings("dpo-matched"), recipe.method_settings("dadpo")
        assert matched["beta"] == pytest.approx(ours["beta_reference"] + ours["beta_teacher"])
        assert recipe.method_settings("dpo")["beta"] == ours["beta_reference"]


def test_what_a_recipe_dumps_is_read_again_as_the_same(tmp_path: Path) -> None:
    recipe = load_recipe()
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert load_recipe(str(path)) == recipe
