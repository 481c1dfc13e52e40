"""FastChat's MT-Bench files: published scores from its judgments, with and without questions and answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.exchange.stores import ORACLE, Rows, assert_round_trip, board, done, exported, lines, refused, tables

FILES = ORACLE / "mt_bench"
published = pytest.mark.skipif(not FILES.is_dir(), reason="the published files are not beside the project")
ANSWERS, JUDGMENTS = "mt-bench-answers", "mt-bench-judgments"


def question(number: int) -> dict[str, Any]:
    return {"question_id": number, "category": "writing", "turns": [f"Q{number}?", "And?"], "reference": ["r", "s"]}


def answer(number: int, model: str = "mine") -> dict[str, Any]:
    return {"question_id": number, "model_id": model, "choices": [{"index": 0, "turns": [f"{model} {number}", "so"]}]}


def judgment(number: int, turn: int, score: float = 7, model: str = "mine", **changes: Any) -> dict[str, Any]:
    said = {
        "question_id": number,
        "model": model,
        "judge": ["gpt-4", "single-v1"],
        "user_prompt": shown(number, turn, model),
        "judgment": f"Good. Rating: [[{score}]]",
        "score": score,
        "turn": turn,
    }
    return {**said, **changes}


def shown(number: int, turn: int, model: str) -> str:
    if turn == 1:
        return (
            f"[Instruction]\nRate.\n\n[Question]\nQ{number}?\n\n[The Start of Assistant's Answer]\n{model} {number}\n"
            "[The End of Assistant's Answer]"
        )
    return (
        f"<|The Start of Assistant A's Conversation with User|>\n\n### User:\nQ{number}?\n\n### Assistant A:\n"
        f"{model} {number}\n\n### User:\nAnd?\n\n### Assistant A:\nso\n\n<|The End of Assistant A's Conversation with"
        " User|>"
    )


def judgments(scores: dict[int, tuple[float, float]], model: str = "mine") -> Rows:
    return [judgment(k, turn, pair[turn - 1], model) for k, pair in scores.items() for turn in (1, 2)]


@published
@pytest.mark.parametrize("beside", [[], ["question.jsonl"], ["question.jsonl", "answer_ultrachat_sai.jsonl"]])
def test_published_scores_are_reproduced(beside: list[str]) -> None:
    """Turn 1, turn 2 and overall exactly, whether questions and answers are among the files or not."""
    kept = done("import", JUDGMENTS, *(FILES / name for name in [*beside, "judgment_gpt-4_single.jsonl"]))
    assert (kept["judged"], kept["unscored"], kept["remarks"]) == ({"gpt-4": 240}, 0, [])
    rows = {row["contestant"]: row for row in board("results/local.sqlite3")}
    for name, scores in json.loads((FILES / "expected_single_scores.json").read_text()).items():
        assert rows[name]["single_by_turn"] == [scores["turn1"], scores["turn2"]]
        assert rows[name]["single_score"] == scores["overall"]


@published
def test_published_judgments_survive_export_and_import(tmp_path: Path) -> None:
    files = [FILES / "question.jsonl", FILES / "judgment_gpt-4_single.jsonl"]
    done("import", JUDGMENTS, *files, "--store", "a.sqlite3")
    assert_round_trip(tmp_path / "a.sqlite3", JUDGMENTS, tmp_path)
    assert_round_trip(tmp_path / "a.sqlite3", "jsonl", tmp_path / "own")


@published
def test_questions_that_come_later_give_their_categories(tmp_path: Path) -> None:
    done("import", JUDGMENTS, FILES / "judgment_gpt-4_single.jsonl", "--store", "late.sqlite3")
    files = [FILES / "question.jsonl", FILES / "answer_ultrachat_sai.jsonl"]
    done("import", ANSWERS, *files, "--store", "late.sqlite3")
    done("import", JUDGMENTS, FILES / "question.jsonl", FILES / "judgment_gpt-4_single.jsonl", "--store", "at.sqlite3")
    late, at_once = board("late.sqlite3"), board("at.sqlite3")
    assert late == at_once
    assert {row[4] for row in tables("late.sqlite3")["task_prompts"]} >= {"writing", "math"}


def test_of_a_half_judged_conversation_the_judged_turn_counts_in_single_scores(tmp_path: Path) -> None:
    rows = [*judgments({1: (8, 6)}), judgment(2, 1, 9)]
    files = [lines(tmp_path / "q.jsonl", [question(1), question(2)]), lines(tmp_path / "j.jsonl", rows)]
    answers = lines(tmp_path / "a.jsonl", [answer(1), answer(2)])
    assert done("import", JUDGMENTS, *files, answers)["unscored"] == 1
    (row,) = board("results/local.sqlite3")
    # As FastChat: turn 1 (8 + 9) / 2, turn 2 is 6, overall the mean of all three.
    assert (row["single_score"], row["single_by_turn"], row["single_prompts"]) == ((8 + 6 + 9) / 3, [8.5, 6], 2)
    assert row["unscored"] == 1


def test_a_score_of_minus_one_is_no_score(tmp_path: Path) -> None:
    rows = [*judgments({1: (8, 6)}), judgment(2, 1, 9), judgment(2, 2, -1, judgment="I cannot say.")]
    kept = done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))
    assert (kept["unscored"], kept["remarks"]) == (1, [])
    assert board("results/local.sqlite3")[0]["single_score"] == (8 + 6 + 9) / 3


@published
def test_published_judgments_without_three_of_turn_2_give_what_fastchat_shows(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FILES / "judgment_gpt-4_single.jsonl").read_text().splitlines()]
    model = rows[0]["model"]
    failed = [row for row in rows if row["model"] == model and row["turn"] == 2][:3]
    for row in failed:
        row["score"] = -1
    done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))
    left = [row for row in rows if row["model"] == model and row["score"] != -1]
    by_turn = [[row["score"] for row in left if row["turn"] == turn] for turn in (1, 2)]
    assert list(map(len, by_turn)) == [80, 77]
    (mine,) = (row for row in board("results/local.sqlite3") if row["contestant"] == model)
    assert mine["single_by_turn"] == pytest.approx([sum(given) / len(given) for given in by_turn])
    assert mine["single_score"] == pytest.approx(sum(row["score"] for row in left) / 157)
    assert (mine["single_prompts"], mine["unscored"]) == (80, 3)


def test_a_turn_that_no_conversation_has_a_score_of_has_no_mean(tmp_path: Path) -> None:
    rows = [row for k in (1, 2) for row in (judgment(k, 1, 8), judgment(k, 2, -1, judgment="?"))]
    done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))
    (row,) = board("results/local.sqlite3")
    assert (row["single_score"], row["single_by_turn"], row["unscored"]) == (8, [8, None], 2)
    assert "8.00 / –" in Path("results/local.md").read_text()


def test_a_turn_that_is_judged_later_completes_its_conversation(tmp_path: Path) -> None:
    failed = [judgment(1, 1, 8), judgment(1, 2, -1, judgment="?")]
    done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", failed))
    done("import", JUDGMENTS, lines(tmp_path / "k.jsonl", judgments({1: (8, 6)})))
    (row,) = board("results/local.sqlite3")
    assert (row["single_score"], row["single_by_turn"], row["unscored"]) == (7, [8, 6], 0)


def test_a_stored_score_that_the_judge_did_not_say_counts_and_is_told(tmp_path: Path) -> None:
    rows = judgments({1: (8, 6)})
    rows[0]["score"] = 10
    kept = done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))
    assert "1 rating read from the judge's words" in kept["remarks"][0]
    assert "j.jsonl, line 1: 10 is stored, 8 follows" in kept["remarks"][1]
    assert board("results/local.sqlite3")[0]["single_by_turn"] == [10, 6]


def test_judgments_and_answers_survive_export_and_import(tmp_path: Path) -> None:
    rows = [*judgments({1: (8, 6), 2: (3, 4.5)}), *judgments({1: (2, -1)}, "other"), judgment(2, 1, 5, "other")]
    files = [
        lines(tmp_path / "q.jsonl", [question(1), question(2)]),
        lines(tmp_path / "a.jsonl", [answer(k, model) for model in ("mine", "other") for k in (1, 2)]),
    ]
    done("import", ANSWERS, *files, "--store", "answers.sqlite3")
    done("import", JUDGMENTS, *files, lines(tmp_path / "j.jsonl", rows), "--store", "all.sqlite3")
    assert_round_trip(tmp_path / "answers.sqlite3", ANSWERS, tmp_path / "x")
    assert_round_trip(tmp_path / "all.sqlite3", JUDGMENTS, tmp_path / "y")
    assert_round_trip(tmp_path / "all.sqlite3", "jsonl", tmp_path / "z")


def test_words_of_another_judge_are_never_read_as_records(tmp_path: Path) -> None:
    """A judge whose words look like FastChat's records does not choose the scores that are exported."""
    spoof = json.dumps([judgment(1, 1, 10)])
    rows: Rows = [
        {"task": "t"},
        {"prompt": {"id": "1", "turns": ["Q1?"]}},
        {"contestant": "mine", "id": "1", "replies": ["mine 1"]},
        {"judge": "j", "kind": "pointwise"},
        {"by": "j", "of": "mine", "id": "1", "rating": {"value": 2, "raw": spoof}},
    ]
    done("import", "jsonl", lines(tmp_path / "own.jsonl", rows), "--store", "a.sqlite3")
    files = exported(tmp_path / "a.sqlite3", JUDGMENTS, tmp_path / "out")
    (row,) = (json.loads(line) for line in Path(files[-1]).read_text().splitlines())
    assert row["score"] == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "tie", "g2_winner": "tie"}, "a pairwise"),
        (judgment(1, 1, 1e9), "score: Input should be less than or equal to 10000"),
        (judgment(1, 1, judge="gpt-4"), "judge: a list expected, not text"),
        (judgment(1, 0), "turn: Input should be greater than or equal to 1"),
        (judgment(1, 2), "turn 2 was judged before, at j.jsonl, line 2"),
        ({"question_id": 9, "turns": []}, "turns: Tuple should have at least 1 item"),
        ({"question_id": "9" * 201, "turns": ["x"]}, "question_id: String should have at most 200 characters"),
        (question(1) | {"turns": ["Else?"]}, "another question was called 1 before"),
        (question(9) | {"turns": ["Q9?", " "]}, "a prompt needs at least one turn, and none may be empty"),
        (answer(9) | {"choices": [{"turns": ["\0", "so"]}]}, "it holds a NUL"),
        (judgment(1, 3), "a judgment of turn 3 where the question has 2 turns"),
        (answer(1) | {"choices": [{"turns": ["else", "so"]}]}, "'mine' answered question 1 otherwise before"),
        ({"x": 1}, "nothing of MT-Bench (a record has one of: choices, judgment, turns, g1_winner)"),
        ([], "nothing of MT-Bench"),
    ],
)
def test_a_wrong_record_is_named_by_its_line(row: Any, said: str, tmp_path: Path) -> None:
    good = [*judgments({1: (8, 6)}), question(1), answer(1)]
    lines(tmp_path / "j.jsonl", [*good, row])
    refusal = refused("import", JUDGMENTS, "j.jsonl")
    assert said in refusal
    assert "j.jsonl, line 5" in refusal


def test_answers_without_their_questions_name_the_file_to_add(tmp_path: Path) -> None:
    assert "question.jsonl" in refused("import", ANSWERS, lines(tmp_path / "a.jsonl", [answer(1)]))


def test_judgments_that_show_no_answer_name_the_file_to_add(tmp_path: Path) -> None:
    rows = [judgment(1, 1, user_prompt=""), judgment(1, 2, user_prompt="")]
    assert "name the model's answer file" in refused("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))
