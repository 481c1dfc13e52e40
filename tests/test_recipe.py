"""Recipes: YAML with `--set` on top, every value typed, and a protocol key that says what may be compared."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench.errors import UserError
from dadpo_bench.plan import make_plan
from dadpo_bench.recipe import Recipe, load_recipe, shipped
from tests.tiny import build_tiny_model


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
    written = [f"methods.sft.{k}={json.dumps(v)}" for k, v in load_recipe().method_settings("sft").items()]
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


def test_a_judge_named_aside_takes_settings_of_its_own_and_none_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    content = {**load_recipe().model_dump(mode="json"), "judge": "pmi", "judge_settings": {"max_tokens": 9}}
    path.write_text(yaml.safe_dump(content))
    asked = load_recipe(str(path), ["judge_settings.base_url=http://127.0.0.1:1/v1"], "chat:m")
    assert asked.judge == "chat:m"
    assert asked.judge_settings == {"base_url": "http://127.0.0.1:1/v1"}
    assert load_recipe(str(path), [], "pmi").judge_settings == {"max_tokens": 9}


def test_files_beside_a_recipe_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load_recipe().model_dump(mode="json", exclude_none=True)
    content["tasks"] = {"mine.jsonl": {"domain": "in"}}
    content |= {"judge": "chat", "judge_settings": {"model": "m", "template": "mine.toml"}}
    (tmp_path / "mine.toml").touch()
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "turns": ["Tea?"]}\n')
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    recipe = load_recipe("../r.yaml")
    assert Path(recipe.judge_settings["template"]).is_file()
    (task,) = make_plan(recipe, ["sft"], 1).tasks
    assert (task.name, task.domain, len(task.prompts)) == ("mine", "in", 1)


def test_edited_prompts_and_a_replaced_model_make_another_protocol(tiny_recipe: Path, tmp_path: Path) -> None:
    def key() -> str:
        return make_plan(load_recipe(str(tiny_recipe)), ["sft"], 1).protocol_key

    content = json.loads(tiny_recipe.read_text())
    content["teacher"]["model"] = str(shutil.copytree(content["teacher"]["model"], tmp_path / "teacher"))
    tiny_recipe.write_text(json.dumps(content))
    seen = [key()]
    for change in ("training.jsonl", "held-out.jsonl"):
        with (tmp_path / change).open("a") as file:
            file.write(json.dumps({"id": "new", "turns": [change]}) + "\n")
        seen.append(key())
    build_tiny_model(tmp_path / "teacher", hidden=64, seed=9)
    seen.append(key())
    assert len(set(seen)) == 4


def test_a_registered_method_is_a_contestant_of_its_own_name(tiny_recipe: Path) -> None:
    content = json.loads(tiny_recipe.read_text())
    del content["methods"]["kd"]
    tiny_recipe.write_text(json.dumps(content))
    plan = make_plan(load_recipe(str(tiny_recipe)), ["kd"], 1)
    assert plan.recipe.method_settings("kd")["divergence"] == "forward_kl"
