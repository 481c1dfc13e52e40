"""What a recipe may say of a served teacher, which of it makes a board, and what `plan` counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dadpo_bench.errors import UserError
from dadpo_bench.models.loading import find_tokenizer, tokenizer_identity
from dadpo_bench.plan import make_plan
from dadpo_bench.planning import Ask, loads, shapes_of
from dadpo_bench.recipe import load_recipe
from dadpo_bench.teacher import Teacher
from tests.conftest import write_recipe

SERVED = {"endpoint": "http://127.0.0.1:8000", "model": "org/big", "protocol": "vllm", "tokenizer": "org/big"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "served-teacher.yaml"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"protocol": None}, "say what its endpoint speaks"),
        ({"tokenizer": None}, "name the model's tokenizer"),
        ({"protocol": "sglang", "tokenizer": None}, "sglang is sent token ids"),
        ({"endpoint": None}, "is of a teacher behind an endpoint: name its endpoint too"),
        ({"endpoint": ()}, "endpoint names no URL"),
        ({"api_key_env": "hf_secret"}, "NAME, in capitals"),
        ({"concurrency": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_missing_or_wrong_is_told_in_a_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Teacher.model_validate({**SERVED, **changes})


@pytest.mark.parametrize("url", ["gpu-1:8000", "ftp://gpu-1", "http://me:secret@gpu-1", "http://gpu-1/v1?key=secret"])
def test_a_url_that_is_none_or_holds_a_secret_is_refused_unsaid(url: str) -> None:
    with pytest.raises(UserError, match=r"^teacher.endpoint must") as refused:
        Teacher.model_validate({**SERVED, "endpoint": ["http://gpu-0:8000", url]})
    assert "secret" not in str(refused.value)


def test_an_openai_endpoint_needs_no_tokenizer_and_gives_no_signals() -> None:
    plain = Teacher.model_validate({**SERVED, "protocol": "openai", "tokenizer": None})
    assert not plain.gives
    assert Teacher.model_validate(SERVED).gives == {"teacher"}
    assert Teacher(model="org/big").gives == {"teacher", "teacher_logits"}


def test_a_teacher_on_this_machine_is_stored_and_shown_as_before() -> None:
    recipe = load_recipe()
    assert recipe.protocol()["teacher"] == {"model": "smollm2-135m-instruct-q4_1"}
    assert recipe.teacher.model_dump(exclude_none=True) == {"model": "smollm2-135m-instruct-q4_1"}


@pytest.fixture
def key(tiny_models: tuple[Path, Path], tmp_path: Path) -> Any:
    """`key(**teacher)`: of the protocol with that teacher."""
    path = write_recipe(tiny_models, tmp_path)
    content = json.loads(path.read_text())

    def of(**teacher: Any) -> str:
        given = {**SERVED, "tokenizer": str(tiny_models[0]), **teacher}
        content["teacher"] = {name: value for name, value in given.items() if value is not None}
        content["judge_settings"] = {"model": str(tiny_models[0])}
        path.write_text(json.dumps(content))
        return make_plan(load_recipe(str(path)), ["sft"], 1).protocol_key

    return of


def test_where_a_vouched_teacher_is_served_and_how_fast_parts_no_board(
    key: Any, tiny_models: tuple[Path, Path]
) -> None:
    one = key()
    assert key(endpoint=["http://gpu-1:1", "http://gpu-2:2/v1"]) == one
    assert key(concurrency=2, timeout_seconds=9, batch_tokens=9, api_key_env="MINE", weights=str(tiny_models[1])) == one
    assert key(tokenizer=str(tiny_models[1])) == one  # another folder, the same tokenizer
    assert len({one, key(model="org/other"), key(protocol="sglang"), key(chat_template="{{ messages }}")}) == 4


def test_a_teacher_known_by_its_host_alone_parts_boards_by_it(key: Any) -> None:
    plain = {"protocol": "openai", "tokenizer": None}
    assert key(**plain) == key(**plain, endpoint="http://localhost:9/v1")
    assert key(**plain) != key(**plain, endpoint="http://gpu-1:8000/v1")


def test_a_tokenizer_needs_no_weights(tiny_models: tuple[Path, Path], tmp_path: Path) -> None:
    for file in tiny_models[0].iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert find_tokenizer(str(tmp_path)) == tmp_path
    assert tokenizer_identity(str(tmp_path)) == tokenizer_identity(str(tiny_models[0]))
    with pytest.raises(UserError, match="no tokenizer directory"):
        find_tokenizer("./nowhere")


def test_files_of_a_served_teacher_are_found_beside_the_recipe(tmp_path: Path) -> None:
    content = load_recipe(str(EXAMPLE)).model_dump(mode="json", exclude_none=True)
    content["teacher"] |= {"tokenizer": "mine", "weights": "mine", "model": "mine"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "r.yaml").write_text(json.dumps(content))
    teacher = load_recipe(str(tmp_path / "r.yaml")).teacher
    assert (teacher.tokenizer, teacher.weights) == (str(tmp_path / "mine"),) * 2
    assert teacher.model == "mine"  # its name at the endpoint


def test_what_a_server_computes_is_asked_and_takes_nothing_of_this_machine() -> None:
    recipe = load_recipe(str(EXAMPLE))
    plan = make_plan(recipe, list(recipe.methods), 1)
    work = {f"{load.stage}/{load.who}": load for load in loads(plan)}
    assert {name for name, load in work.items() if isinstance(load, Ask)} == {
        "teacher-responses/teacher",
        "signals/teacher",
        "responses/teacher",
        "judge/chat",
    }
    assert work["signals/teacher"].examples == 2 * work["signals/reference"].examples
    configs = EXAMPLE.parent / "configs"
    shapes = shapes_of(recipe, {"student": configs / "qwen2.5-1.5b.json"})
    assert shapes.teacher is None
    with pytest.raises(UserError, match="this recipe's teacher is served"):
        shapes_of(recipe, {"teacher": configs / "qwen2.5-7b-instruct.json"})
