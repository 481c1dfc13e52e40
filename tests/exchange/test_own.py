"""Our own lines: everything that a store holds of a task, and strict about it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dadpo_bench.exchange import Wanted, format_named
from dadpo_bench.exchange.files import write_files
from tests.exchange.stores import assert_round_trip, board, call, done, lines, refused

GOOD: list[dict[str, Any]] = [
    {"task": "mine", "baseline": "b"},
    {"prompt": {"id": "p", "turns": ["Q?", "And?"], "category": "c", "reference": ["x", "y"], "system": "s"}},
    {"contestant": "b", "id": "p", "replies": ["1", "2"]},
    {"contestant": "m", "id": "p", "replies": [{"text": "3", "finish": "length", "token_ids": [4, 5]}, "4"]},
    {"judge": "pairs", "kind": "pairwise", "identity": {"model": "x"}},
    {"judge": "marks", "kind": "pointwise", "proxy": True},
    {"by": "pairs", "of": "m", "id": "p", "order": "ab", "verdict": {"outcome": "win", "preference": 0.75, "raw": "A"}},
    {"by": "pairs", "of": "m", "id": "p", "order": "ba", "verdict": {"outcome": "unscored", "reason": "refused"}},
    {"by": "marks", "of": "m", "id": "p", "rating": {"value": 7.5, "by_turn": [7, 8], "tokens": 9}},
    {"by": "marks", "of": "b", "id": "p", "rating": {"value": None, "reason": "too long"}},
]


def test_everything_survives_export_and_import(tmp_path: Path) -> None:
    done("import", "jsonl", lines(tmp_path / "own.jsonl", GOOD), "--store", "a.sqlite3")
    assert_round_trip(tmp_path / "a.sqlite3", "jsonl", tmp_path)


def test_a_proxy_stays_one(tmp_path: Path) -> None:
    done("import", "jsonl", lines(tmp_path / "own.jsonl", GOOD))
    assert "is a proxy, not a judgment of preference" in Path("results/local.md").read_text()


def test_a_panels_words_come_without_its_members(tmp_path: Path) -> None:
    rows = json.loads(json.dumps(GOOD))
    rows[4]["identity"] = {"panel": [["chat", {}]], "combine": "majority"}
    done("import", "jsonl", lines(tmp_path / "own.jsonl", rows))
    assert board("results/local.sqlite3")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"by": "nobody", "of": "m", "id": "p", "rating": {"value": 1}}, "no earlier line tells of judge 'nobody'"),
        ({"by": "marks", "of": "m", "id": "q", "rating": {"value": 1}}, "no earlier line tells of prompt 'q'"),
        (
            {"by": "marks", "of": "x", "id": "p", "rating": {"value": 1}},
            "no earlier line tells of answer of 'x' to 'p'",
        ),
        ({"by": "marks", "of": "m", "id": "p"}, "judge 'marks' is pointwise, so its lines have a rating"),
        ({"by": "marks", "of": "m", "id": "p", "rating": {"value": 1}}, "'marks' said otherwise of it before"),
        ({"by": "marks", "of": "m", "id": "p", "rating": {"value": 1e300}}, "a number beyond what databases keep"),
        (
            {"by": "marks", "of": "m", "id": "p", "rating": {"value": 1, "tokens": 10**30}},
            "a number beyond what databases keep",
        ),
        ({"by": "marks", "of": "m", "id": "p", "rating": {"value": 1, "reason": "x" * 201}}, "at most 200 characters"),
        ({"by": "pairs", "of": "b", "id": "p", "verdict": {"outcome": "win"}}, "'b' is compared with itself"),
        ({"by": "pairs", "of": "m", "id": "p", "verdict": {"outcome": "maybe"}}, "verdict.outcome: 'win', "),
        (
            {"by": "marks", "of": "m", "id": "p", "rating": {"value": float("nan")}},
            "rating.value: Input should be a fin",
        ),
        ({"contestant": "m", "id": "p", "replies": ["else", "4"]}, "'m' answered 'p' otherwise before"),
        ({"contestant": "n", "id": "p", "replies": ["1"]}, "1 answer to 2 turns"),
        ({"contestant": "x" * 300, "id": "p", "replies": []}, "contestant: a name has 1 to 200 characters"),
        ({"judge": "marks", "kind": "pairwise"}, "another judge was called 'marks' before"),
        ({"prompt": {"id": "p", "turns": ["Else?"]}}, "another prompt was called 'p' before"),
        ({"prompt": {"id": "r", "turns": []}}, "a prompt needs at least one turn, and none may be empty"),
        ({"prompt": {"id": "r", "turns": ["x", " "]}}, "a prompt needs at least one turn, and none may be empty"),
        ({"prompt": {"id": "r" * 201, "turns": ["x"]}}, "a prompt has an id of at most 200"),
        ({"prompt": {"id": "r", "turns": ["\0"]}}, "it holds a NUL"),
        ({"contestant": "n", "id": "p", "replies": ["1", "\0"]}, "it holds a NUL"),
        ({"task": "mine", "baseline": "b", "split": "\0"}, "it holds a NUL"),
        ({"by": "marks", "of": "m", "id": "p", "rating": {"value": 1, "raw": "\0"}}, "it holds a NUL"),
        (
            {"by": "marks", "of": "m", "id": "p", "rating": {"value": 7, "by_turn": [7]}},
            "by_turn has 1 rating, the pro",
        ),
        (
            {"by": "marks", "of": "m", "id": "p", "rating": {"value": 7, "by_turn": [7, 8]}},
            "value 7.0 is not the mean of by_turn",
        ),
        (
            {"by": "marks", "of": "m", "id": "p", "rating": {"value": 7, "by_turn": [7, None]}},
            "value 7.0 is not the mean of by_turn (null where a turn has none)",
        ),
        (
            {"by": "pairs", "of": "m", "id": "p", "verdict": {"outcome": "win", "preference": 0.1}},
            "outcome win and preference 0.1 contradict each other",
        ),
        (
            {"by": "pairs", "of": "m", "id": "p", "verdict": {"outcome": "unscored", "preference": 0.5}},
            "outcome unscored and preference 0.5 contradict each other",
        ),
        ({"prompt": {"id": "r", "turns": ["x"], "category": "c" * 81}}, "a category of at most 80"),
        ({"task": "other"}, "another task or baseline than before; import them apart"),
        ({"contestant": "m", "id": "p", "replies": [], "extra": 1}, "extra: unknown setting"),
        ({"turns": ["x"]}, "nothing of dadpo-bench's JSON Lines (a record has one of:"),
        (7, "nothing of dadpo-bench's JSON Lines"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(row: Any, said: str, tmp_path: Path) -> None:
    lines(tmp_path / "own.jsonl", [*GOOD, row])
    refusal = refused("import", "jsonl", "own.jsonl")
    assert said in refusal
    assert f"own.jsonl, line {len(GOOD) + 1}: " in refusal
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line names the task"),
        ('{"task": "\\ud800"}', "line 1: a \\ud800 to \\udfff stands alone"),
        ('{"task": ' + "1" * 5000 + "}", "line 1: not valid JSON (a number of too many digits)"),
        ("[" * 100_000, "line 1: not valid JSON (nested too deeply)"),
        ('{"task": "x"}\n{', "line 2: not valid JSON"),
        ("\udcff", "'utf-8' codec"),
    ],
    ids=["empty", "half a pair", "digits", "deep", "cut", "no text"],
)
def test_a_file_that_is_none_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    assert said in refused("import", "jsonl", "own.jsonl")


def test_a_line_of_a_megabyte_is_a_line(tmp_path: Path) -> None:
    rows = [
        *GOOD[:2],
        {"contestant": "b", "id": "p", "replies": ["x" * 1_000_000, "a backslash before u0000: \\u0000"]},
    ]
    assert done("import", "jsonl", lines(tmp_path / "own.jsonl", rows))["contestants"] == {"b": 1}


def test_equal_prompts_of_two_ids_are_refused(tmp_path: Path) -> None:
    rows = [*GOOD[:2], {"prompt": {"id": "q", "turns": ["Q?", "And?"], "system": "s"}}, GOOD[2]]
    assert "two prompts ask the same, the second is 'q'" in refused(
        "import", "jsonl", lines(tmp_path / "o.jsonl", rows)
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAME = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=200)


@given(answers=st.dictionaries(NAME, st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=3), turn=TEXT)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_parcel_is_read_as_it_was_written(
    answers: dict[str, list[str]], turn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The files alone: whatever texts and names hold, line ends of every kind among them."""
    folder = tmp_path_factory.mktemp("any")
    rows = [{"task": "mine"}, *({"prompt": {"id": str(k), "turns": [f"{k}{turn}"]}} for k in range(2))]
    rows += [{"contestant": n, "id": str(k), "replies": [texts[k]]} for n, texts in answers.items() for k in range(2)]
    own = format_named("jsonl")
    parcel = own.read([lines(folder / "own.jsonl", rows)], Wanted())
    assert own.read(write_files(folder / "out", own.write(parcel)), Wanted()) == parcel


def test_help_has_an_example_of_each_family() -> None:
    text = " ".join(call("import", "--help").stdout.split())
    for format in ("alpaca-eval-annotations", "mt-bench-judgments", "arena-hard-judgments", "jsonl"):
        assert f"import {format}" in text
