"""Import and export as commands: atomic, repeatable, inside their folder, and plain about mistakes."""

import json
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.exchange import Wanted, format_named
from dadpo_bench.exchange.stored import keep
from dadpo_bench.store import open_store, publish
from tests.exchange.stores import board, call, done, lines, refused, tables
from tests.exchange.test_own import GOOD


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return lines(tmp_path / "own.jsonl", GOOD)


def test_importing_twice_changes_nothing(own: Path) -> None:
    done("import", "jsonl", own)
    once, shown = tables("results/local.sqlite3"), Path("results/local.md").read_bytes()
    done("import", "jsonl", own)
    assert tables("results/local.sqlite3") == once
    assert Path("results/local.md").read_bytes() == shown


def test_what_is_printed_for_machines_is_complete(own: Path) -> None:
    assert done("import", "jsonl", own) == {
        "task": "mine",
        "prompts": 1,
        "baseline": "b",
        "contestants": {"b": 1, "m": 1},
        "judged": {"pairs": 2, "marks": 2},
        "unscored": 2,
        "differing": 0,
        "remarks": [],
        "board": "results/local.md",
    }


def test_what_is_printed_for_people_is_short(own: Path) -> None:
    assert call("import", "jsonl", own).stdout.splitlines() == [
        "mine: 1 prompt, against b",
        "  b: 1 response",
        "  m: 1 response",
        "  judge pairs: 2 judgments",
        "  judge marks: 2 judgments",
        "  unscored: 2 judgments",
        "board: results/local.md",
    ]


def test_progress_is_shown_on_a_terminal_beside_what_machines_read(own: Path) -> None:
    command = ["import", "jsonl", str(own), "--json"]
    result = CliRunner().invoke(app, command, env={"FORCE_COLOR": "1"})
    assert json.loads(result.stdout)["prompts"] == 1
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", result.stderr)
    for part in ("read: 1 file in", "keep: 2 contestants in", "keep: 2 judges in", "score: 2 judges in"):
        assert part in shown
    assert CliRunner().invoke(app, command).stderr == ""


def test_answers_that_nobody_judged_are_not_on_the_board_yet(tmp_path: Path) -> None:
    said = call("import", "jsonl", lines(tmp_path / "o.jsonl", [*GOOD[:2], GOOD[3]])).stdout
    assert "no responses of b among the files" in said
    assert "not on the board yet: nobody judged them" in said


def test_an_import_that_is_interrupted_leaves_nothing(own: Path) -> None:
    """One transaction: stopped while judgments are written, the store has neither prompts nor answers."""
    parcel = format_named("jsonl").read([own], Wanted())
    with closing(open_store("a.sqlite3")) as store:

        @event.listens_for(store.engine, "before_cursor_execute")
        def _(*arguments: object) -> None:
            if "INSERT INTO verdicts" in str(arguments[2]):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            keep(store, parcel)
    assert {name: rows for name, rows in tables("a.sqlite3").items() if rows}.keys() == {"alembic_version"}


def test_other_answers_of_the_same_name_are_refused(own: Path, tmp_path: Path) -> None:
    done("import", "jsonl", own)
    before = tables("results/local.sqlite3")
    other = lines(tmp_path / "other.jsonl", [*GOOD[:2], {"contestant": "m", "id": "p", "replies": ["x", "y"]}])
    assert "the board has other answers of 'm'; give these another name" in refused("import", "jsonl", other)
    assert tables("results/local.sqlite3") == before


def test_names_are_data_on_the_board_and_in_paths(tmp_path: Path) -> None:
    evil = "../../x|<script>alert(1)</script>[red]"
    rows = [
        {
            **row,
            **({"contestant": evil} if row.get("contestant") == "m" else {}),
            **({"of": evil} if row.get("of") == "m" else {}),
        }
        for row in GOOD
    ]
    store = tmp_path / "deep" / "er" / "a.sqlite3"
    done("import", "jsonl", lines(tmp_path / "own.jsonl", rows), "--store", store)
    text = store.with_suffix(".md").read_text()
    assert "../../x\\|\\<script\\>alert(1)\\</script\\>\\[red\\]" in text
    out = tmp_path / "deep" / "out"
    for format in ("alpaca-eval-outputs", "mt-bench-judgments", "arena-hard-judgments", "jsonl"):
        for path in done("export", format, "--store", store, "--out", out):
            assert Path(path).resolve().is_relative_to(out)
            assert not Path(path).name.startswith(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "own.jsonl"]


def test_long_names_keep_their_files_ending(tmp_path: Path) -> None:
    rows = [*GOOD[:2], {"contestant": "語" * 200, "id": "p", "replies": ["x", "y"]}]
    done("import", "jsonl", lines(tmp_path / "own.jsonl", rows))
    (path,) = done("export", "alpaca-eval-outputs")
    assert path.endswith("語.json")


def test_the_judge_and_contestants_of_an_export_are_chosen(own: Path) -> None:
    done("import", "jsonl", own)
    done("export", "jsonl", "--judge", "marks", "--contestant", "m")
    text = Path("export/mine.jsonl").read_text()
    assert '"judge": "marks"' in text
    assert "pairs" not in text
    assert '"contestant": "b"' in text  # the baseline comes along


def test_of_several_boards_one_is_chosen(own: Path, tmp_path: Path) -> None:
    done("import", "jsonl", own)
    done("import", "jsonl", lines(tmp_path / "o.jsonl", [{"task": "mine"}, *GOOD[1:4]]))
    said = refused("export", "jsonl", "--task", "mine")
    assert "mine on 'mine' (" in said
    assert "mine on 'mine, against b' (" in said
    assert len(done("export", "jsonl", "--board", "mine, against b")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "alpaca-eval-output", "own.jsonl"], "did you mean 'alpaca-eval-outputs'?"),
        (["export", "mt-bench-answer"], "did you mean 'mt-bench-answers'?"),
        (["import", "jsonl", "."], "Is a directory"),
        (["import", "jsonl", "none.jsonl"], "none.jsonl: No such file"),
        (["import", "jsonl"], "FILE"),
        (["import", "jsonl", "own.jsonl", "--task", "x" * 300], "--task: a name has 1 to 200 characters"),
        (["import", "jsonl", "own.jsonl", "--rename", "m=\x1b[31m"], "--rename: a name has 1 to 200 characters"),
        (["import", "jsonl", "own.jsonl", "--rename", "m=" + "x" * 500], "--rename: a name has 1 to 200 characters"),
        (["import", "jsonl", "own.jsonl", "--baseline", ""], "--baseline: a name has 1 to 200 characters"),
        (["export", "jsonl"], "no store at"),
    ],
)
def test_a_wrong_word_is_answered_with_the_remedy(arguments: list[str], said: str, own: Path) -> None:
    assert said in refused(*arguments)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "min"], "did you mean 'mine'?"),
        (["--judge", "mark"], "did you mean 'marks'?"),
        (["--contestant", "n"], "unknown contestant 'n'"),
        (["--board", "nine"], "unknown board 'nine'"),
        (["--out", "own.jsonl"], "cannot write own.jsonl"),
    ],
)
def test_an_export_of_what_is_not_there_names_what_is(options: list[str], said: str, own: Path) -> None:
    done("import", "jsonl", own)
    assert said in refused("export", "jsonl", *options)


def test_a_published_store_is_not_written(own: Path) -> None:
    with closing(open_store("a.sqlite3")) as store:
        publish(store, Path("public.sqlite3"))
    before = Path("public.sqlite3").read_bytes()
    assert "is a published store" in refused("import", "jsonl", own, "--store", "public.sqlite3")
    assert Path("public.sqlite3").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_store_that_cannot_be_written_is_named(own: Path) -> None:
    open_store("a.sqlite3").close()
    Path("a.sqlite3").chmod(0o444)
    assert "cannot be written" in refused("import", "jsonl", own, "--store", "a.sqlite3")


def test_stored_judgments_are_never_replaced(own: Path, tmp_path: Path) -> None:
    done("import", "jsonl", own)
    rows = [*GOOD[:6], {"by": "pairs", "of": "m", "id": "p", "order": "ab", "verdict": {"outcome": "loss"}}]
    done("import", "jsonl", lines(tmp_path / "later.jsonl", rows))
    with closing(sqlite3.connect("results/local.sqlite3")) as connection:
        kept = connection.execute("SELECT outcome FROM verdicts WHERE \"order\" = 'ab'").fetchall()
    assert kept == [("win",)]
    assert board("results/local.sqlite3")
