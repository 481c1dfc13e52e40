"""The field's benchmarks, read from the files their authors publish."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.tasks import load_task, sources, task_data

ORACLE = Path(__file__).parents[3] / "shared" / "oracle"
real = pytest.mark.skipif(not ORACLE.is_dir(), reason="the published files are not beside the project")


@real
@pytest.mark.parametrize("data", ["mt_bench", "mt_bench/question.jsonl", "."])
def test_mt_bench_is_80_two_turn_questions_of_which_30_show_judges_a_reference(data: str) -> None:
    prompts = load_task("mt_bench", "heldout", data=str(ORACLE / data)).prompts
    assert len(prompts) == 80
    assert {len(prompt.turns) for prompt in prompts} == {2}
    # Ten questions each of reasoning, maths and coding; others have none, whatever the question file says.
    assert Counter(p.category for p in prompts if p.reference) == {"reasoning": 10, "math": 10, "coding": 10}
    assert all(len(p.reference) == 2 for p in prompts if p.reference)


@real
def test_arena_hard_has_500_prompts_and_750_of_three_categories() -> None:
    data = str(ORACLE / "arena_hard")
    assert len(load_task("arena_hard_v0.1", "heldout", data=data).prompts) == 500
    second = load_task("arena_hard_v2.0", "heldout", data=data)
    assert Counter(p.category for p in second.prompts) == {"coding": 253, "creative_writing": 250, "math": 247}


@real
def test_alpaca_eval_2_is_read_from_annotations_with_the_baselines_answers() -> None:
    found = task_data("alpaca_eval_2", "heldout", str(ORACLE / "alpaca_eval" / "annotations" / "claude-2.json"))
    assert len(found.prompts) == 805
    assert found.baseline_name == "gpt4_1106_preview"
    assert found.baseline is not None
    assert set(found.baseline) == {prompt.id for prompt in found.prompts}


@real
@pytest.mark.parametrize("name", ["mt_bench", "arena_hard_v0.1", "arena_hard_v2.0"])
def test_an_entry_says_how_many_prompts_the_file_has(name: str) -> None:
    folder = ORACLE / ("mt_bench" if name == "mt_bench" else "arena_hard")
    assert registry.tasks[name].prompts == {"heldout": len(task_data(name, "heldout", str(folder)).prompts)}


def test_a_shipped_entry_says_how_many_prompts_it_has() -> None:
    for name in ("assistance", "general"):
        entry = registry.tasks[name]
        counts = {split: len(load_task(name, split).prompts) for split in entry.splits}
        assert entry.prompts == counts
        assert entry.turns == max(len(p.turns) for s in entry.splits for p in load_task(name, s).prompts)


def write(path: Path, *records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def question(number: int, category: str = "writing", turns: int = 1) -> dict[str, object]:
    return {"question_id": number, "category": category, "turns": [f"q{number}.{turn}" for turn in range(turns)]}


def test_a_maths_question_without_its_reference_answer_is_refused_by_line(tmp_path: Path) -> None:
    write(tmp_path / "question.jsonl", question(1), question(2, "math", 2))
    write(tmp_path / "reference_answer_gpt-4.jsonl", {"question_id": 2, "choices": [{"turns": ["only one"]}]})
    with pytest.raises(UserError, match=r"question.jsonl, line 2: question 2 has no reference answer to each turn"):
        task_data("mt_bench", "heldout", str(tmp_path))


@pytest.mark.parametrize("name", ["question.jsonl", "reference_answer_gpt-4.jsonl"])
def test_a_question_id_that_is_none_is_refused_by_line(name: str, tmp_path: Path) -> None:
    for file in ("question.jsonl", "reference_answer_gpt-4.jsonl"):
        write(
            tmp_path / file, {**question(1), "question_id": [1] if file == name else 1, "choices": [{"turns": ["r"]}]}
        )
    with pytest.raises(UserError, match=rf"{name}, line 1: no text or whole number 'question_id'; its fields: "):
        task_data("mt_bench", "heldout", str(tmp_path))


def test_a_file_that_is_missing_beside_the_one_named_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "question.jsonl", question(1))
    with pytest.raises(UserError, match=r"needs gpt-4.jsonl of github:lm-sys/FastChat: put it beside .*question.jsonl"):
        task_data("mt_bench", "heldout", str(path))


def test_the_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"uid": "a", "category": "arena-hard-v0.1", "cluster": "c", "prompt": "p"})
    with pytest.raises(UserError, match=r"line 1: no text 'subcategory'; its fields: uid, category, cluster, prompt"):
        task_data("arena_hard_v2.0", "heldout", str(path))


def test_each_kind_of_arena_hard_prompt_has_its_own_baseline(tmp_path: Path) -> None:
    hard = {"uid": "h", "category": "hard_prompt", "subcategory": "math", "prompt": "2 + 2?"}
    verse = {"uid": "c", "category": "creative_writing", "subcategory": "creative_writing", "prompt": "A verse."}
    write(tmp_path / "question_v2.0.jsonl", hard, verse)
    for model, said in (("o3-mini-2025-01-31", "o3"), ("gemini-2.0-flash-001", "gemini")):
        answers = [{"uid": u, "messages": [{"role": "assistant", "content": {"answer": said}}]} for u in "hc"]
        write(tmp_path / "data/arena-hard-v2.0/model_answer" / f"{model}.jsonl", *answers)
    assert task_data("arena_hard_v2.0", "heldout", str(tmp_path)).baseline == {"h": ("o3",), "c": ("gemini",)}


def test_an_earlier_exchange_of_wildbench_stands_above_the_question(tmp_path: Path) -> None:
    said = [("user", "Name a fish."), ("assistant", "Pike."), ("user", "Another.")]
    record = {
        "session_id": "s",
        "primary_tag": "Brainstorming",
        "checklist": ["names a fish"],
        "conversation_input": [{"role": role, "content": text} for role, text in said],
    }
    write(tmp_path / "wildbench_v2.jsonl", record)
    (prompt,) = task_data("wildbench_v2", "heldout", str(tmp_path)).prompts
    assert prompt.turns == ("Our conversation so far:\n\nUser: Name a fish.\n\nAssistant: Pike.\n\nUser: Another.",)
    assert prompt.checklist == ("names a fish",)


def test_ultrachats_training_split_is_cut_by_content_and_its_test_split_is_held_out(tmp_path: Path) -> None:
    rows = [{"prompt": f"Prompt {i}", "prompt_id": str(i), "messages": []} for i in range(500)]
    write(tmp_path / "train_sft.jsonl", *rows, rows[0])
    write(tmp_path / "test_sft.jsonl", {"prompt": "Held out", "prompt_id": "h"})
    found = {s: task_data("ultrachat_200k", s, str(tmp_path)) for s in ("train", "validation", "heldout")}
    assert [p.turns[0] for p in found["heldout"].prompts] == ["Held out"]
    ids = [{p.id for p in found[s].prompts} for s in ("train", "validation")]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 500
    assert 2 <= len(ids[1]) <= 25  # 2 % of 500 is 10
    assert found["train"].duplicates == 1


def test_one_file_cannot_stand_for_all_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {"prompt": "x", "prompt_id": "1"})
    with pytest.raises(UserError, match="name the folder that holds the files of all splits"):
        task_data("ultrachat_200k", "train", str(path))


def test_an_unreachable_source_says_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setenv("DADPO_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_from_hub", unreachable)
    with pytest.raises(UserError) as caught:
        task_data("alpaca_eval", "heldout")
    said = str(caught.value)
    assert "\n" not in said
    for part in ("no route to host", "alpaca_eval.json", "datasets/tatsu-lab/alpaca_eval", str(tmp_path), "--data"):
        assert part in said


def test_what_was_put_into_the_cache_by_hand_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DADPO_BENCH_CACHE", str(tmp_path))
    path = tmp_path / "tasks" / "alpaca_eval" / "alpaca_eval.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"instruction": "Hi", "output": "Ho", "generator": "g", "dataset": "koala"}]))
    found = task_data("alpaca_eval", "heldout")
    assert (found.baseline_name, found.prompts[0].category) == ("g", "koala")
    assert sources.note_of(registry.tasks["alpaca_eval"]) is None


def test_the_revision_is_noted_at_the_first_download_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str | None] = []

    def snapshot(repository: str, wanted: object, folder: Path, revision: str | None) -> str:
        asked.append(revision)
        for part in ("train_sft", "test_sft"):
            write(folder / "data" / f"{part}-00000-of-00001.parquet.jsonl", {"prompt": part, "prompt_id": part})
        return revision or "cafe"

    monkeypatch.setenv("DADPO_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_from_hub", snapshot)
    entry = registry.tasks["ultrachat_200k"]
    for _ in range(2):
        sources.fetch(entry, "heldout")
    note = sources.note_of(entry)
    assert note is not None
    assert (asked, note["revision"], note["repository"]) == (
        [None, "cafe"],
        "cafe",
        "hub:HuggingFaceH4/ultrachat_200k",
    )
