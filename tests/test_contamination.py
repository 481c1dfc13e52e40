"""Held-out prompts that were trained on are found, told, and refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.contamination import Overlap, label, overlap
from dadpo_bench.errors import UserError
from dadpo_bench.plan import make_plan
from dadpo_bench.recipe import load_recipe, shipped
from dadpo_bench.tasks import load_task
from dadpo_bench.types import Prompt


def prompts(*texts: str | tuple[str, ...]) -> list[Prompt]:
    asked = [(text,) if isinstance(text, str) else text for text in texts]
    return [Prompt(id=f"p{i}", turns=turns) for i, turns in enumerate(asked)]


def kinds(found: Overlap) -> list[str]:
    return [leak.kind for leak in found.leaks]


def test_case_spacing_punctuation_and_letter_forms_make_no_difference() -> None:
    assert kinds(overlap(prompts("What's  the TIME?"), prompts("what’s the ｔime"))) == ["exact"]


def test_one_word_changed_in_twenty_is_a_near_duplicate_and_one_in_ten_is_not() -> None:
    def changed(length: int) -> Overlap:
        words = [f"w{i}" for i in range(length)]
        return overlap(prompts(" ".join(words)), prompts(" ".join([*words[:8], "other", *words[9:]])), 0.7)

    (leak,) = changed(20).leaks
    # 18 triples each; 3 hold the changed word: 15 in common of 18 + 18 - 15 = 21.
    assert (leak.kind, leak.similarity) == ("near-duplicate", pytest.approx(15 / 21))
    # 8 triples each, 2 hold it (it is the ninth of ten): 6 of 10.
    assert not changed(10).leaks


def test_thirteen_words_in_common_are_a_passage_and_twelve_are_not() -> None:
    def shared(count: int) -> list[str]:
        passage = " ".join(f"w{i}" for i in range(count))
        other = " ".join(f"x{i}" for i in range(40))
        return kinds(overlap(prompts(f"{passage} {other}"), prompts(f"before {passage} after")))

    assert (shared(13), shared(12)) == (["13-gram"], [])


def test_a_passage_may_repeat_its_own_words() -> None:
    passage = "to be or not to be or not that is the question whether"
    other = " ".join(f"x{i}" for i in range(40))
    assert kinds(overlap(prompts(f"{passage} {other}"), prompts(f"before {passage} after"))) == ["13-gram"]


def test_prompts_of_signs_alone_are_held_against_each_other() -> None:
    assert kinds(overlap(prompts("🙂🙂  ???"), prompts("🙂🙂 ???", "🙂🙂 !"))) == ["exact"]


def test_a_two_turn_prompt_leaks_by_its_first_turn_and_not_by_a_later_one() -> None:
    held = prompts(("Name three kinds of tea.", "Shorter, please."))
    assert kinds(overlap(prompts("Name three kinds of tea."), held)) == ["exact"]
    assert kinds(overlap(prompts("Shorter, please."), held)) == []


def test_scripts_without_blanks_count_by_the_character() -> None:
    text = "请用三句话解释为什么天空是蓝色的"
    assert kinds(overlap(prompts(text + "吗"), prompts(text))) == ["near-duplicate"]


def test_of_several_pairs_the_worst_is_told_and_all_training_prompts_are_known() -> None:
    words = " ".join(f"w{i}" for i in range(30))
    found = overlap(prompts(f"{words} more", "else entirely", words), prompts(words))
    assert [(leak.kind, leak.train.id) for leak in found.leaks] == [("exact", "p2")]
    assert found.train == {0, 2}


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=18)


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6))
def test_the_index_finds_what_comparing_every_pair_finds(train: list[list[str]], heldout: list[list[str]]) -> None:
    def grams(words: list[str], size: int) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}

    def leaks(ours: list[str], theirs: list[str]) -> bool:
        mine, other = grams(ours, 3) or {tuple(ours)}, grams(theirs, 3) or {tuple(theirs)}
        alike = len(mine & other) / len(mine | other)
        return ours == theirs or alike >= 0.7 or bool(grams(ours, 13) & grams(theirs, 13))

    found = overlap(prompts(*map(" ".join, train)), prompts(*map(" ".join, heldout)))
    assert {leak.heldout.id for leak in found.leaks} == {
        f"p{i}" for i, theirs in enumerate(heldout) if any(leaks(ours, theirs) for ours in train)
    }
    assert found.train == {i for i, ours in enumerate(train) if any(leaks(ours, theirs) for theirs in heldout)}


@pytest.mark.parametrize("recipe", shipped())
def test_no_shipped_recipe_tests_on_what_it_trains_on(recipe: str) -> None:
    chosen = load_recipe(recipe)
    learnt = [load_task(chosen.prompts.task, split).prompts for split in ("train", "validation")]
    for name in chosen.tasks:
        assert not any(overlap(part, load_task(name, "heldout").prompts).leaks for part in learnt)


def test_a_label_is_one_short_line_without_control_characters() -> None:
    (prompt,) = prompts("\x1b[31mred\nand " + "long " * 40)
    assert label(prompt, 20) == "[31mred and long lo…"


def lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path


def test_the_command_tells_pairs_escaped_exits_1_and_writes_what_is_clean(tmp_path: Path) -> None:
    text = "[bold]Describe[/bold] the oldest lighthouse on the island in one sentence"
    train = lines(tmp_path / "train.jsonl", f"{text}!", "Something else")
    held = lines(tmp_path / "held.jsonl", text, "Nothing of the kind")
    clean = tmp_path / "clean.jsonl"
    words = ["contamination", "--train", str(train), "--task", str(held)]
    told = CliRunner().invoke(app, [*words, "--write", str(clean)])
    assert told.exit_code == 1
    assert "[bold]Describe[/bold]" in told.stdout
    assert [json.loads(line)["turns"] for line in clean.read_text().splitlines()] == [["Something else"]]
    (row,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert [row[name] for name in ("prompts", "exact", "near-duplicate", "13-gram", "threshold")] == [2, 1, 0, 0, 0.7]
    assert CliRunner().invoke(app, [*words[:2], str(clean), *words[3:]]).exit_code == 0


def test_a_run_refuses_a_leaking_split_unless_told(tiny_recipe: Path, tmp_path: Path) -> None:
    text = "Describe the oldest lighthouse on the island in one short sentence for a child"
    lines(tmp_path / "training.jsonl", text, "Something else")
    lines(tmp_path / "held-out.jsonl", text + " please", "Nothing of the kind", "Nor this")
    with pytest.raises(UserError) as caught:
        make_plan(load_recipe(str(tiny_recipe)), ["sft"], 1)
    said = str(caught.value)
    assert "\n" not in said
    for part in ("'held-out': 1 prompt leaked", "near-duplicate, similarity 0.92", "--allow-contamination", "--write"):
        assert part in said
    allowed = make_plan(load_recipe(str(tiny_recipe), ["prompts.allow_contamination=true"]), ["sft"], 1)
    assert len(allowed.tasks[0].prompts) == 3


def test_data_goes_to_the_tasks_that_read_files_and_to_no_other(tiny_recipe: Path) -> None:
    content = json.loads(tiny_recipe.read_text())
    content["tasks"] = {"mt_bench": {}, "alpaca_eval": {"data": "mine"}, "general": {}}
    tiny_recipe.write_text(json.dumps(content))
    recipe = load_recipe(str(tiny_recipe)).reading("folder")
    assert {name: choice.data for name, choice in recipe.tasks.items()} == {
        "mt_bench": "folder",
        "alpaca_eval": "mine",
        "general": None,
    }
    with pytest.raises(UserError, match="every task of the recipe has its prompts already"):
        recipe.reading("folder")
