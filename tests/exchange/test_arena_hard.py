"""Arena-Hard-Auto's files: both forms of its code, v2.0's two baselines, answers as published."""

from pathlib import Path
from typing import Any

import pytest

from tests.exchange.stores import ORACLE, Rows, assert_round_trip, board, done, lines, refused, tables

FILES = ORACLE / "arena_hard"
published = pytest.mark.skipif(not FILES.is_dir(), reason="the published files are not beside the project")
ANSWERS, JUDGMENTS = "arena-hard-answers", "arena-hard-judgments"
HARD, CREATIVE = "o3-mini-2025-01-31", "gemini-2.0-flash-001"


def question(uid: str, category: str = "hard_prompt", subcategory: str = "coding") -> dict[str, Any]:
    return {"uid": uid, "category": category, "subcategory": subcategory, "prompt": f"{uid}?"}


def answer(uid: str, model: str, **changes: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": {"answer": f"{model} on {uid}"}}
    return {"uid": uid, "model": model, "messages": [{"role": "user", "content": f"{uid}?"}, said], **changes}


def game(score: str | None, words: str | None = None) -> dict[str, Any]:
    """As v2.0's code writes it: the judge's answer in an object, the messages that it was sent beside."""
    said = f"My final verdict is [[{score}]]" if words is None else words
    return {"score": score, "judgment": {"answer": said}, "prompt": [{"role": "user", "content": "…"}]}


def judgment(
    uid: str, games: Rows, baseline: str = HARD, category: str = "hard_prompt", **changes: Any
) -> dict[str, Any]:
    who = {"uid": uid, "category": category, "judge": "gpt-4.1", "model": "mine", "baseline": baseline}
    return {**who, "games": games, **changes}


def earlier(uid: str) -> Rows:
    """A question, two answers and a judgment of v0.1's code: other names, no baseline, words as they are."""
    said = [
        {"model_id": model, "choices": [{"index": 0, "turns": [{"content": f"{model}!", "token_len": 2}]}]}
        for model in ("mine", "gpt-4-0314")
    ]
    games = [
        {"user_prompt": "…", "judgment": "\n[[B>>A]]", "score": "B>>A"},
        {"user_prompt": "…", "judgment": "\nIt is [[A=B]], so [[A=B]]", "score": "A=B"},
    ]
    return [
        {"question_id": uid, "category": "arena-hard-v0.1", "cluster": "Tea", "turns": [{"content": f"{uid}?"}]},
        *({"question_id": uid, **each} for each in said),
        {"question_id": uid, "model": "mine", "judge": "gpt-4-1106-preview", "games": games},
    ]


@published
@pytest.mark.parametrize(
    ("answers", "questions", "task", "model"),
    [
        ("answer_v0.1_gpt-4-0613_first100.jsonl", "question_v0.1.jsonl", "arena_hard_v0.1", "gpt-4-0613"),
        ("answer_v2.0_o3-mini_100.jsonl", "question_v2.0.jsonl", "arena_hard_v2.0", HARD),
    ],
)
def test_published_answers_load_with_their_categories(
    answers: str, questions: str, task: str, model: str, tmp_path: Path
) -> None:
    kept = done("import", ANSWERS, FILES / answers, FILES / questions, "--store", "a.sqlite3")
    assert (kept["task"], kept["prompts"], kept["contestants"]) == (task, 100, {model: 100})
    categories = {row[4] for row in tables("a.sqlite3")["task_prompts"]}
    assert categories == ({"arena-hard-v0.1"} if "v0.1" in answers else {"coding", "math", "creative_writing"})
    assert_round_trip(tmp_path / "a.sqlite3", ANSWERS, tmp_path)


def test_five_levels_are_seen_from_the_contestant_in_both_games(tmp_path: Path) -> None:
    # Game 1 shows the baseline as A, game 2 the contestant: B>>A then A>B are 1 and ¾ for the contestant.
    rows = [question("q"), answer("q", "mine"), answer("q", HARD), judgment("q", [game("B>>A"), game("A>B")])]
    kept = done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))
    assert (kept["task"], kept["baseline"], kept["judged"], kept["remarks"]) == (
        "arena_hard_v2.0",
        HARD,
        {"gpt-4.1": 2},
        [],
    )
    assert board("results/local.sqlite3")[0]["win_rate"] == 100 * (1 + 0.75) / 2


def test_the_form_of_v01_is_read_and_its_baseline_known(tmp_path: Path) -> None:
    kept = done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", earlier("q")))
    assert (kept["task"], kept["baseline"], kept["remarks"]) == ("arena_hard_v0.1", "gpt-4-0314", [])
    # B>>A with the baseline as A is a win, then a tie.
    assert board("results/local.sqlite3")[0]["win_rate"] == 75


def test_each_half_of_v20_is_a_board_of_its_own(tmp_path: Path) -> None:
    rows = [
        *(question("q"), question("w", "creative_writing", "creative_writing")),
        *(answer(uid, model) for uid in ("q", "w") for model in ("mine", HARD, CREATIVE)),
        judgment("q", [game("B>A"), game("A>B")]),
        judgment("w", [game("A>B"), game("B>A")], CREATIVE, "creative_writing"),
    ]
    file = lines(tmp_path / "j.jsonl", rows)
    assert f"several baselines ({CREATIVE}, {HARD}): choose with --baseline" in refused("import", JUDGMENTS, file)
    for baseline in (HARD, CREATIVE):
        kept = done("import", JUDGMENTS, file, "--baseline", baseline)
        assert (kept["prompts"], kept["judged"]) == (1, {"gpt-4.1": 2})
    mine = {row["baseline"]: row for row in board("results/local.sqlite3") if row["contestant"] == "mine"}
    assert {name: (row["win_rate"], row["unscored"]) for name, row in mine.items()} == {
        HARD: (75, 0),
        CREATIVE: (25, 0),
    }


def test_a_game_that_failed_is_unscored_with_its_reason(tmp_path: Path) -> None:
    rows = [
        *(question("q"), answer("q", "mine"), answer("q", HARD)),
        judgment("q", [None, game(None, "I cannot decide.")]),  # type: ignore[list-item]
    ]
    assert done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))["unscored"] == 2
    assert {row[4] for row in tables("results/local.sqlite3")["verdicts"]} >= {"unscored"}


@pytest.mark.parametrize("words", [{"answer": None}, None])
def test_a_game_without_an_answer_is_unscored(words: Any, tmp_path: Path) -> None:
    rows = [
        *(question("q"), answer("q", "mine"), answer("q", HARD)),
        judgment("q", [{"score": None, "judgment": words}, game("A>B")]),
    ]
    kept = done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows), "--store", "all.sqlite3")
    assert (kept["unscored"], kept["remarks"]) == (1, [])
    assert_round_trip(tmp_path / "all.sqlite3", JUDGMENTS, tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("First [[A>B]], at last [[B>A]]", None),  # v2.0's code takes the last
        ("so [b>a]", None),  # of single brackets where no double are, whatever their case
        ("[[A>B]]", "B>A is stored, A>B follows"),
        ("nothing", "B>A is stored, nothing follows"),
    ],
)
def test_words_are_read_as_v20s_code_reads_them(words: str, told: str | None, tmp_path: Path) -> None:
    rows = [question("q"), answer("q", "mine"), answer("q", HARD), judgment("q", [game("B>A", words)])]
    remarks = done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows))["remarks"]
    assert remarks == [] if told is None else told in remarks[1]
    assert board("results/local.sqlite3")[0]["win_rate"] == 75  # the stored one counts


def test_answers_and_judgments_survive_export_and_import(tmp_path: Path) -> None:
    rows = [
        *(question(uid) for uid in "qrs"),
        *(answer(uid, model) for uid in "qrs" for model in ("mine", HARD)),
        judgment("q", [game("B>>A"), game("A=B")]),
        judgment("r", [None, game(None, "?")]),  # type: ignore[list-item]
        judgment("s", [game("A<<B")]),
    ]
    done("import", JUDGMENTS, lines(tmp_path / "j.jsonl", rows), "--store", "all.sqlite3")
    assert_round_trip(tmp_path / "all.sqlite3", JUDGMENTS, tmp_path)


def test_a_second_contestant_joins_the_board_of_the_first(tmp_path: Path) -> None:
    first = [question("q"), answer("q", "mine"), answer("q", HARD), judgment("q", [game("B>A"), game("A>B")])]
    done("import", JUDGMENTS, lines(tmp_path / "1.jsonl", first))
    second = [question("r"), *(answer(u, m) for u in "qr" for m in ("yours", HARD))]
    second += [judgment(uid, [game("A>B"), game("B>A")], model="yours") for uid in "qr"]
    kept = done("import", JUDGMENTS, lines(tmp_path / "2.jsonl", second))
    assert kept["prompts"] == 2
    rows = {row["contestant"]: row for row in board("results/local.sqlite3")}
    assert {name: (rows[name]["win_rate"], rows[name]["unscored"]) for name in ("mine", "yours")} == {
        "mine": (75, 1),  # it did not answer r
        "yours": (25, 0),
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"uid": "q", "model": "mine", "messages": [1, 2]}, "messages.0: fields by name expected, not a number"),
        ({"uid": "q", "model": "mine", "messages": [{"role": "user"}] * 2}, "messages.0.content: it is missing"),
        ({"uid": "q", "model": "mine", "messages": [{"role": "user", "content": "x"}] * 2}, "one message of the user"),
        (answer("q", "mine", messages="x"), "messages: a list expected, not text"),
        ({"question_id": "q", "model_id": "mine", "choices": []}, "choices: Tuple should have at least 1 item"),
        (judgment("q", []), "games: Tuple should have at least 1 item"),
        (judgment("q", [game("A>B")] * 3), "games: Tuple should have at most 2 items"),
        (judgment("q", [game("A>B")], model="x" * 300), "model: a name has 1 to 200 characters"),
        (judgment("q", [game("A>B")], model=HARD), f"'{HARD}' is compared with itself"),
        (judgment("q", [game("A>B")], model="nobody"), "no answer of 'nobody' to q; name its answer file too"),
        (question("r") | {"prompt": " "}, "a prompt needs at least one turn, and none may be empty"),
        (judgment("q", [game("A>B", "\0")]), "it holds a NUL"),
        (question("q") | {"prompt": "Else?"}, "another question was called q before"),
        ({"uid": "q"}, "nothing of Arena-Hard (a record has one of: messages, choices, games, prompt, turns)"),
    ],
)
def test_a_wrong_record_is_named_by_its_line(row: Any, said: str, tmp_path: Path) -> None:
    good = [question("q"), answer("q", HARD), judgment("q", [game("A>B")], model="other"), answer("q", "other")]
    lines(tmp_path / "j.jsonl", [*good, row])
    refusal = refused("import", JUDGMENTS, "j.jsonl")
    assert said in refusal
    assert "j.jsonl, line 5" in refusal


def test_a_judgment_twice_is_refused(tmp_path: Path) -> None:
    twice = [judgment("q", [game("A>B")])] * 2
    assert "line 2: judged before, at j.jsonl, line 1" in refused("import", JUDGMENTS, lines(Path("j.jsonl"), twice))


def test_versions_are_not_mixed(tmp_path: Path) -> None:
    rows = [*earlier("o")[:2], question("q"), answer("q", "mine")]
    assert "arena_hard_v0.1 and arena_hard_v2.0: import them apart" in refused(
        "import", ANSWERS, lines(tmp_path / "a.jsonl", rows)
    )
