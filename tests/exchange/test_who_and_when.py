"""What export and import carry beside words: seeds, settings, KL, dates, and judges that are told apart."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.exchange.stores import assert_round_trip, board, call, done, exported, lines, refused, tables
from tests.exchange.test_own import GOOD

REFERENCE = Path(__file__).parents[2] / "results" / "reference.sqlite3"
LOCAL = Path("results/local.sqlite3")

SEEDS: list[dict[str, Any]] = [
    {"task": "mine", "baseline": "b"},
    *({"prompt": {"id": f"p{k}", "turns": [f"Q{k}?"]}} for k in range(2)),
    *(
        {"entrant": f"ours-{seed}", "name": "ours", "trained": True, "seed": seed, "settings": {"beta": 0.1}}
        for seed in (0, 1)
    ),
    *({"contestant": who, "id": f"p{k}", "replies": ["x"]} for who in ("b", "ours-0", "ours-1") for k in range(2)),
    {"judge": "pairs", "kind": "pairwise", "identity": {"model": "x"}},
    *(
        {
            "by": "pairs",
            "of": f"ours-{seed}",
            "id": f"p{k}",
            "asked": f"2024-03-0{k + 1}T12:00:00+02:00",
            "verdict": {"outcome": outcome},
        }
        for seed, outcomes in enumerate((("win", "win"), ("win", "loss")))
        for k, outcome in enumerate(outcomes)
    ),
]


def rows_of(store: Path, task: str) -> dict[str, Any]:
    with closing(sqlite3.connect(store)) as connection:
        query = 'SELECT contestant, "values" FROM scores JOIN tasks ON tasks.key = task_key WHERE tasks.name = ?'
        return {name: json.loads(values) for name, values in connection.execute(query, [task])}


def asked(store: Path, table: str = "verdicts") -> list[str]:
    with closing(sqlite3.connect(store)) as connection:
        return sorted(str(when)[:19] for (when,) in connection.execute(f"SELECT asked FROM {table}"))


def test_every_row_of_the_reference_comes_back_from_its_export(tmp_path: Path) -> None:
    """Three training seeds are one row again: the same rates, intervals, lengths, flips and KL."""
    files = exported(REFERENCE, "jsonl", tmp_path / "out", "--task", "general")
    assert done("import", "jsonl", *files)["contestants"]["dadpo"] == 3 * 40
    assert rows_of(LOCAL, "general") == rows_of(REFERENCE, "general")
    assert rows_of(LOCAL, "general")["dadpo"]["seeds"] == 3
    assert_round_trip(LOCAL, "jsonl", tmp_path / "again")


def test_seeds_that_say_the_same_keep_their_own_verdicts_and_dates(tmp_path: Path) -> None:
    done("import", "jsonl", lines(tmp_path / "own.jsonl", SEEDS))
    (row,) = (row for row in board(LOCAL) if row["contestant"] == "ours")
    assert (row["win_rate"], row["seeds"]) == (75, 2)
    # Noon in a zone two hours ahead of UTC.
    assert asked(LOCAL) == sorted(2 * ["2024-03-01 10:00:00", "2024-03-02 10:00:00"])
    assert_round_trip(LOCAL, "jsonl", tmp_path)
    assert asked(tmp_path / "again.sqlite3") == asked(LOCAL)


def test_all_seeds_of_a_contestant_are_chosen_and_renamed_by_its_name(tmp_path: Path) -> None:
    file = lines(tmp_path / "own.jsonl", SEEDS)
    assert done("import", "jsonl", file, "--rename", "ours=theirs")["contestants"] == {"theirs": 4, "b": 2}
    assert {row["contestant"] for row in board(LOCAL)} == {"b", "theirs"}
    text = Path(exported(LOCAL, "jsonl", tmp_path / "out", "--contestant", "theirs")[0]).read_text()
    assert text.count('"entrant": "theirs-seed') == 2
    assert "would have the same name" in refused("import", "jsonl", file, "--rename", "ours=b")


def test_a_method_that_is_not_installed_here_is_imported(tmp_path: Path) -> None:
    rows = [{**row, "settings": {"method": "elsewhere"}} if "entrant" in row else row for row in SEEDS]
    assert done("import", "jsonl", lines(tmp_path / "own.jsonl", rows))["contestants"]["ours"] == 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"entrant": "ours-0", "name": "else"}, "line 17: something else was said of 'ours-0' before"),
        ({"entrant": "b", "name": "else"}, "'b' is the baseline, which has a name and nothing else"),
        ({"entrant": "c", "name": "b", "seed": 1}, "'b' and 'c' are one contestant"),
        (
            {"entrant": "c", "name": "ours", "trained": True, "seed": 1, "settings": {"beta": 0.1}},
            "'ours-1' and 'c' are one contestant",
        ),
        (
            {"entrant": "c", "name": "x", "settings": {"a": "\x1b[31m"}},
            "line 17: nothing of dadpo-bench's JSON Lines (",
        ),
        ({"entrant": "c", "name": "x", "seed": -1}, "line 17: nothing of dadpo-bench's JSON Lines (seed"),
        (
            {"by": "pairs", "of": "ours-0", "id": "p0", "asked": "0001-01-01T00:00:00+14:00"},
            "line 17: nothing of dadpo-bench's JSON Lines (asked",
        ),
    ],
)
def test_who_is_told_apart_by_nothing_is_refused(row: Any, said: str, tmp_path: Path) -> None:
    answers = {"contestant": "c", "id": "p0", "replies": ["x"]}
    assert said in refused("import", "jsonl", lines(tmp_path / "own.jsonl", [*SEEDS, row, answers]))


def test_kl_moves_along_when_a_later_file_adds_prompts(tmp_path: Path) -> None:
    rows = [{**row, "kl": [0.5, 0.25]} if "entrant" in row else row for row in SEEDS]
    done("import", "jsonl", lines(tmp_path / "own.jsonl", rows))
    more = [SEEDS[0], {"prompt": {"id": "new", "turns": ["New?"]}}, {"contestant": "b", "id": "new", "replies": ["y"]}]
    done("import", "jsonl", lines(tmp_path / "more.jsonl", more))
    (row,) = (row for row in board(LOCAL) if row["contestant"] == "ours")
    assert (row["kl_from_teacher"], row["kl_to_teacher"], row["unscored"]) == (0.5, 0.25, 2)  # by neither seed


def two_judges(first: dict[str, Any], second: dict[str, Any], *, name: str = "other") -> list[dict[str, Any]]:
    """The verdicts of `GOOD`, and a second judge that says the contrary."""
    rows = [{**row, "identity": first} if row.get("judge") == "pairs" else row for row in GOOD]
    other = {"by": name, "of": "m", "id": "p", "order": "ab", "verdict": {"outcome": "loss"}}
    return [*rows, {"judge": name, "kind": "pairwise", "identity": second}, other]


def test_panels_of_other_members_stay_two_judges(tmp_path: Path) -> None:
    panels = ({"judge": "panel", "panel": [["pmi", {}], [who, {}]]} for who in ("longer", "gptscore"))
    done("import", "jsonl", lines(tmp_path / "own.jsonl", two_judges(*panels)))
    outcomes = sorted(row[4] for row in tables(LOCAL)["verdicts"])
    assert outcomes == ["loss", "unscored", "win"]
    assert_round_trip(LOCAL, "jsonl", tmp_path)


def test_judges_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    rows = two_judges({"model": "x"}, {"model": "x"})
    assert "judges 'pairs' and 'other' have one identity" in refused(
        "import", "jsonl", lines(tmp_path / "o.jsonl", rows)
    )


def test_a_judge_of_pairs_does_not_become_one_of_single_answers(tmp_path: Path) -> None:
    done("import", "jsonl", lines(tmp_path / "own.jsonl", GOOD))
    rows = [*GOOD[:4], {"judge": "pairs", "kind": "pointwise", "identity": {"model": "x"}}]
    said = refused("import", "jsonl", lines(tmp_path / "other.jsonl", rows))
    assert "judge 'pairs' is pointwise; the store knows it as pairwise" in said


@pytest.mark.parametrize("name", ["pairs", "p" * 200])
def test_judges_of_one_name_are_exported_and_chosen_apart(name: str, tmp_path: Path) -> None:
    done("import", "jsonl", lines(tmp_path / "own.jsonl", two_judges({"model": "x"}, {"model": "y"})))
    with closing(sqlite3.connect(LOCAL)) as connection, connection:
        connection.execute("UPDATE judges SET name = ? WHERE kind = 'pairwise'", [name])
        keys = [key for (key,) in connection.execute("SELECT key FROM judges WHERE kind = 'pairwise'")]
    files = exported(LOCAL, "jsonl", tmp_path / "out")
    again = done("import", "jsonl", *files, "--store", "again.sqlite3")
    apart = {f"{name[:193]} {key[:6]}" for key in keys}
    assert again["judged"].keys() == {*apart, "marks"}
    assert tables("again.sqlite3")["verdicts"] == tables(LOCAL)["verdicts"]
    for format in ("alpaca-eval-annotations", "arena-hard-judgments"):
        assert call("export", format, "--out", format).exit_code == 0
    text = Path(exported(LOCAL, "jsonl", tmp_path / "one", "--judge", sorted(apart)[0])[0]).read_text()
    assert [one in text for one in sorted(apart)] == [True, False]
    assert len(done("export", "alpaca-eval-annotations", "--judge", name, "--out", "both")) == 2


def test_other_judgments_than_the_stored_ones_are_told(tmp_path: Path) -> None:
    done("import", "jsonl", lines(tmp_path / "own.jsonl", GOOD))
    rows = [
        *GOOD[:6],
        {"by": "pairs", "of": "m", "id": "p", "order": "ab", "verdict": {"outcome": "loss"}},
        {"by": "pairs", "of": "m", "id": "p", "order": "ba", "verdict": {"outcome": "win"}},
        {"by": "marks", "of": "m", "id": "p", "rating": {"value": 7.5, "by_turn": [8, 7]}},
        {"by": "marks", "of": "b", "id": "p", "rating": {"value": 3}},
    ]
    later = lines(tmp_path / "later.jsonl", rows)
    # What was unscored is replaced; the verdict and the rating that were there stay.
    assert done("import", "jsonl", later)["differing"] == 2
    assert "  2 judgments unlike the stored ones, which stay" in call("import", "jsonl", later).stdout.splitlines()
    ratings, verdicts = tables(LOCAL)["ratings"], tables(LOCAL)["verdicts"]
    assert {"[7.0, 8.0]", 3.0} <= {value for row in ratings for value in row}
    assert sorted(row[4] for row in verdicts) == ["win", "win"]
