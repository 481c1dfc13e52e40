"""Anybody's data set as a task: files of four forms, columns of five, splits by content."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from dadpo_bench.errors import UserError
from dadpo_bench.plan import make_plan
from dadpo_bench.recipe import Shares, load_recipe
from dadpo_bench.tasks import load_task, sources, task_data
from dadpo_bench.tasks.columns import to_prompt
from dadpo_bench.tasks.splits import SPLITS, split_of
from dadpo_bench.types import Prompt

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "Two?"},
]
SHAREGPT = [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}]


@pytest.mark.parametrize(
    ("record", "turns", "system"),
    [
        ({"id": "a", "turns": ["One?", "Two?"]}, ("One?", "Two?"), ""),
        ({"messages": CHAT}, ("One?", "Two?"), "Be brief."),
        ({"conversations": SHAREGPT}, ("One?",), ""),
        ({"prompt": "One?"}, ("One?",), ""),
        ({"prompt": CHAT[1:2], "chosen": CHAT}, ("One?",), ""),
        ({"instruction": "Sum up.", "input": "Text."}, ("Sum up.\n\nText.",), ""),
        ({"instruction": "Sum up.", "input": ""}, ("Sum up.",), ""),
        ({"question": "One?", "answer": "1"}, ("One?",), ""),
    ],
)
def test_a_record_is_read_by_the_columns_it_has(record: dict[str, Any], turns: tuple[str, ...], system: str) -> None:
    prompt = to_prompt(record, "here", 7)
    assert (prompt.turns, prompt.system) == (turns, system)
    assert prompt.id == ("a" if "id" in record else "7")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "x", "label": 1}, "here: no prompt is found; its fields: text, label; accepted are turns, messages"),
        ({"prompt": "  "}, "here: a prompt needs at least one turn, and none may be empty"),
        ({"prompt": "a\0b"}, "here: it holds a NUL"),
        ({"messages": CHAT[2:3]}, "here: a prompt needs at least one turn"),
        ({"messages": [{"role": "user", "content": None}]}, "here: a user's message without text"),
        ({"messages": "x"}, "here: messages are a list of objects with role and content"),
        ({"question": 3}, "here: no text 'question'"),
        ({"question": "x", "id": "i" * 201}, "here: a prompt has an id of at most 200 characters"),
        (
            {"question": "x", "category": "c" * 81},
            "here: a prompt has an id of at most 200 characters, a category of at",
        ),
    ],
)
def test_a_record_that_is_no_prompt_is_refused_with_its_place(record: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        to_prompt(record, "here", 1)
    assert str(caught.value).startswith(said)


def test_the_four_kinds_of_file_and_a_folder_of_them_are_read(tmp_path: Path) -> None:
    rows = [{"prompt": "Line\nbreak, \u2028 and “quotes”", "category": "a"}, {"prompt": "Two", "category": "b"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    with (tmp_path / "d.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "category"])
        writer.writeheader()
        writer.writerows(rows)
    asked = [(row["prompt"], row["category"]) for row in rows]
    for path in sorted(tmp_path.iterdir()):
        assert [(p.turns[0], p.category) for p in load_task(str(path), "heldout").prompts] == asked
    together = load_task(str(tmp_path), "heldout")
    assert (len(together.prompts), together.duplicates) == (2, 6)


def test_a_csv_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,category,prompt\na,b,c\n")
    with pytest.raises(UserError, match=r"p.csv, line 1: two columns are called 'prompt'"):
        load_task(str(tmp_path / "p.csv"), "heldout")


def test_a_bad_row_of_a_csv_file_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,category\n"two\nlines",x\none\n')
    with pytest.raises(UserError, match=r"p.csv, line 4: 1 fields where the first line names 2"):
        load_task(str(tmp_path / "p.csv"), "heldout")


def test_a_file_of_our_own_form_may_not_repeat_a_prompt(tmp_path: Path) -> None:
    line = json.dumps({"id": "a", "turns": ["x"]}) + "\n"
    (tmp_path / "p.jsonl").write_text(2 * line)
    with pytest.raises(UserError, match=r"p.jsonl, line 2: a prompt occurs twice"):
        load_task(str(tmp_path / "p.jsonl"), "heldout")


def numbered(count: int) -> list[Prompt]:
    return [Prompt(id=str(i), turns=(f"prompt number {i}",)) for i in range(count)]


def test_shares_are_met_and_a_seed_makes_other_splits() -> None:
    prompts = numbered(2000)
    first, other = ([split_of(p, Shares(seed=seed)) for p in prompts] for seed in (0, 1))
    # Binomial: 2000 × 5 % = 100, standard deviation √(2000 × 0.05 × 0.95) = 9.7; five of them are 49.
    assert all(abs(first.count(name) - 100) < 49 for name in ("validation", "heldout"))
    assert first != other


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.integers(0, 3))
def test_a_prompts_split_depends_on_nothing_but_its_own_wording(texts: list[str], seed: int) -> None:
    shares = Shares(train=0.4, validation=0.3, heldout=0.3, seed=seed)
    for text in texts:
        split = split_of(Prompt(id="x", turns=(text,)), shares)
        assert split in SPLITS
        again = Prompt(id="y", turns=(f"  {text.swapcase()} ",), category="c")
        if text.isascii():
            assert split_of(again, shares) == split


def test_shares_add_up_to_one() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        Shares(train=0.9, validation=0.9, heldout=0)


def test_one_file_is_split_for_training_and_for_the_board(tiny_recipe: Path, tmp_path: Path) -> None:
    rows = [{"question": f"What rhymes with {word}?"} for word in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    content = json.loads(tiny_recipe.read_text())
    content["prompts"] = {"task": "mine.json", "split": {"train": 0.6, "validation": 0.2, "heldout": 0.2}}
    content["prompts"]["validation"] = 2
    content["tasks"] = {"mine.json": {"domain": "in"}}
    content["evaluation"] = {"kl_prompts": 0, "canary_prompts": 2}
    tiny_recipe.write_text(json.dumps(content))
    plan = make_plan(load_recipe(str(tiny_recipe)), ["sft"], 1)
    asked = [{p.key for p in task.prompts} for task in (plan.train_task, *plan.tasks)]
    assert all(asked)
    assert not asked[0] & asked[1]


def test_a_hubs_data_set_is_fetched_once_and_its_splits_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[str] = []

    def data_set(name: str) -> tuple[str, dict[str, list[dict[str, str]]]]:
        fetched.append(name)
        return "cafe", {"train": [{"prompt": "a"}, {"prompt": "a"}], "test": [{"prompt": "b"}]}

    monkeypatch.setenv("DADPO_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_data_set", data_set)
    for split, text in (("train", "a"), ("heldout", "b")):
        assert [p.turns[0] for p in task_data("some/set", split).prompts] == [text]
    assert fetched == ["some/set"]
    note = json.loads((tmp_path / "tasks" / "some--set" / "source.json").read_text())
    assert (note["revision"], note["duplicates"]) == ("cafe", {"train": 1, "test": 0})
    with pytest.raises(UserError, match=r"has no split 'validation', it has: test, train; let the recipe's `split`"):
        task_data("some/set", "validation")
    assert {len(task_data("some/set", s, shares=Shares(train=1, validation=0, heldout=0)).prompts) for s in SPLITS} == {
        0,
        2,
    }
