"""`check` fails only for a drop that the data can prove."""

import json
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.exchange.parcel import JudgedBy, Judgment, Parcel
from dadpo_bench.exchange.stored import keep
from dadpo_bench.leaderboard import write_board
from dadpo_bench.scores import save_scores
from dadpo_bench.store import Store, save_task, schema
from dadpo_bench.tasks import Task
from dadpo_bench.types import Outcome, Prompt, Rating, Reply, Response, Verdict
from tests.empty_store import empty_store

PROMPTS = 40


def build(path: Path, *wins: int, protocol: str = "p", settings: dict[str, float] | None = None) -> Store:
    """A store in which `dadpo` wins so many of 40 prompts against the teacher, seed by seed."""
    store = empty_store(path)
    task = Task(
        name="t",
        domain="in",
        split="heldout",
        prompts=tuple(Prompt(id=str(i), turns=(f"{i}?",)) for i in range(PROMPTS)),
    )
    with store.write() as session:
        save_task(session, task)
        session.add(
            schema.Protocol(key=protocol, name="r", settings={"teacher": {"model": "m"}, "student": {"model": "s"}})
        )
        identity = {"judge": "j"}
        session.add(schema.Judge(key="j", name="j", kind="pointwise", proxy=True, identity=identity))
        session.flush()
        everybody: list[tuple[str, str, int | None, int]] = [("teacher", "teacher", None, PROMPTS)]
        everybody += [("method", "dadpo", seed, count) for seed, count in enumerate(wins)]
        for kind, name, seed, _ in everybody:
            key = f"{name}{seed}"
            session.add(
                schema.Contestant(
                    key=key,
                    protocol_key=protocol,
                    name=name,
                    kind=kind,
                    seed=seed,
                    settings=settings or {},
                    model_key=key,
                )
            )
        session.flush()
        for number, prompt in enumerate(task.prompts):
            for _, name, seed, count in everybody:
                contestant = f"{name}{seed}"
                key = f"{contestant}/{number}"
                reply = {"text": "x", "token_ids": [], "finish": "stop"}
                session.add(
                    schema.Response(
                        key=key,
                        batch_key=key,
                        model_key=contestant,
                        prompt_key=prompt.key,
                        sampling={},
                        replies=[reply],
                        characters=1,
                        grams=0,
                        repeated=0,
                        cut=False,
                    )
                )
                session.flush()
                answer = {"contestant_key": contestant, "task_key": task.key, "prompt_key": prompt.key}
                session.add(schema.Answer(**answer, response_key=key))
                value = 1.0 if name == "teacher" else 2.0 * (number < count)
                session.add(schema.Rating(judge_key="j", response_key=key, value=value, reason=""))
        session.add(
            schema.Run(
                protocol_key=protocol,
                started=datetime(2026, 1, 1, tzinfo=UTC),
                finished=None,
                arguments={},
                recipe={},
                environment={"precision": "x", "device": "cpu", "versions": {"torch": "1", "transformers": "1"}},
            )
        )
    save_scores(store, protocol, "j")
    return store


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [(20, 20, 0), (20, 18, 0), (30, 8, 1), (8, 30, 0)],
    ids=["equal", "a drop within noise", "a proven drop", "a gain"],
)
def test_only_a_proven_drop_fails(before: int, after: int, code: int, tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", before), build(tmp_path / "new.sqlite3", after)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == code
    assert ("proven drop: dadpo on t, judge j" in result.stdout) == (code == 1)


def checked(new: Store, old: Store, *options: object) -> Result:
    return CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name, *map(str, options)])


@pytest.mark.parametrize(
    ("before", "after", "verdict"), [(30, 8, "worse"), (8, 30, "better"), (20, 18, "same"), (18, 20, "same")]
)
def test_gains_and_drops_are_proven_alike(before: int, after: int, verdict: str, tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", before), build(tmp_path / "new.sqlite3", after)
    (row,) = json.loads(checked(new, old, "--json").stdout)["rows"]
    assert (row["direction"], row["dropped"]) == (verdict, verdict == "worse")
    # 22 of 40 prompts changed sides, 55 points; all one way, and no flip of 10,000 did as much.
    if verdict != "same":
        assert abs(row["difference"]) == pytest.approx(55)
        assert row["p_value"] == row["p_holm"] == 1 / 10_001


def imported(
    path: Path, contestants: dict[str, int], *, task: str = "t", rated: bool = False, prompts: int = PROMPTS
) -> Store:
    """Imported contestants that win so many prompts (rated: get 7 there, else 4); no baseline where they are rated."""
    asked = [Prompt(id=str(i), turns=(f"{i}?",)) for i in range(prompts)]

    def said(wins: bool) -> Verdict | Rating:
        return Rating(value=7 if wins else 4) if rated else Verdict(outcome=Outcome.win if wins else Outcome.loss)

    judged = [Judgment(c, p.key, said(i < n)) for c, n in contestants.items() for i, p in enumerate(asked)]
    everybody = contestants if rated else {**contestants, "base": 0}
    parcel = Parcel(
        Task(name=task, domain="out", split="heldout", prompts=tuple(asked)),
        {c: {p.key: Response(prompt=p, replies=(Reply(text=c),)) for p in asked} for c in everybody},
        "" if rated else "base",
        [JudgedBy("judge", "pointwise" if rated else "pairwise", {"judge": "judge"}, judged)],
    )
    store = empty_store(path)
    keep(store, parcel)
    return store


def rows_of(result: Result) -> list[tuple[str, str, str, float]]:
    return [
        (row["contestant"], row["direction"], row["measure"], round(row["difference"], 9))
        for row in json.loads(result.stdout)["rows"]
    ]


def test_imported_contestants_are_compared(tmp_path: Path) -> None:
    old = imported(tmp_path / "old.sqlite3", {"a": 30, "b": 10, "c": 5})
    new = imported(tmp_path / "new.sqlite3", {"a": 8, "b": 32, "d": 5})
    result = checked(new, old, "--json")
    assert rows_of(result) == [("a", "worse", "win rate", -55), ("b", "better", "win rate", 55)]
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["not_compared"], told["gone"]) == (
        ["t, against base / judge / t / d"],
        ["t, against base / judge / t / c"],
    )


def test_an_open_board_of_fewer_prompts_is_compared_on_those(tmp_path: Path) -> None:
    old, new = imported(tmp_path / "old.sqlite3", {"a": 30}), imported(tmp_path / "new.sqlite3", {"a": 3}, prompts=30)
    (row,) = json.loads(checked(new, old, "--json").stdout)["rows"]
    # Of the first 30 prompts all were won before, 3 are now.
    assert (row["prompts"], row["before"], row["after"], row["direction"]) == (30, 100, 10, "worse")


def test_single_answers_are_compared_by_their_ratings(tmp_path: Path) -> None:
    old = imported(tmp_path / "old.sqlite3", {"a": 30, "b": 20}, rated=True)
    new = imported(tmp_path / "new.sqlite3", {"a": 8, "b": 21}, rated=True)
    result = checked(new, old, "--json")
    # 22 of 40 prompts lost 3 points: −1.65; one gained 3: +0.075.
    assert rows_of(result) == [("a", "worse", "rating", -1.65), ("b", "same", "rating", 0.075)]
    assert "6.25 → 4.60" in checked(new, old).stdout
    assert result.exit_code == 1


def test_evidence_is_written_as_junit_xml(tmp_path: Path) -> None:
    old = imported(tmp_path / "old.sqlite3", {"a": 30, "b": 10, "c": 5})
    new = imported(tmp_path / "new.sqlite3", {"a": 8, "b": 32, "d": 5})
    assert checked(new, old, "--junit", tmp_path / "check.xml").exit_code == 1
    root = ET.parse(tmp_path / "check.xml").getroot()
    assert root.attrib == {"name": "dadpo-bench check", "tests": "4", "failures": "1", "skipped": "2", "errors": "0"}
    (suite,) = root
    assert suite.get("name") == "t, against base, judge"
    assert [(c.get("classname"), c.get("name"), c[0].tag) for c in suite] == [
        ("t", "a", "failure"),
        ("t", "b", "system-out"),
        ("t", "d", "skipped"),
        ("t", "c", "skipped"),
    ]
    assert suite[0][0].text == (
        "worse: win rate 75.0 → 20.0, difference −55.0 (−70.0 to −40.0) points (95 %), "
        "p (Holm) 0.0002, 40 prompts, seeds 1 → 1"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('"/><failure>&lol;', '"/><failure>&lol;'),
        ("]]><!--\ta\n", "]]><!--\ta\n"),
        ("[red]a[/red] :smile:", "[red]a[/red] :smile:"),
        ("nul\x00 bell\x07 escape\x1b[2J \uffff", "nul\ufffd bell\ufffd escape\ufffd[2J \ufffd"),
    ],
)
def test_hostile_names_stay_data_in_xml(name: str, shown: str, tmp_path: Path) -> None:
    old, new = (imported(tmp_path / f"{side}.sqlite3", {name: 20}, task=name) for side in ("old", "new"))
    assert checked(new, old, "--junit", tmp_path / "check.xml").exit_code == 0
    (case,) = ET.parse(tmp_path / "check.xml").getroot().iter("testcase")
    assert (case.get("classname"), case.get("name"), [e.tag for e in case]) == (shown, shown, ["system-out"])


def test_a_junit_file_that_cannot_be_written_is_no_proven_drop(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 20)
    result = checked(store, store, "--junit", tmp_path / "missing" / "check.xml")
    assert result.exit_code == 2
    assert "missing" in result.stderr


def places(names: Sequence[str]) -> str:
    return "; ".join(f"t, against base / judge / t / {name}" for name in names)


def test_of_many_rows_without_a_partner_ten_are_named(tmp_path: Path) -> None:
    names = [f"c{i:02}" for i in range(13)]
    old, new = (
        imported(tmp_path / "old.sqlite3", {"a": 9}),
        imported(tmp_path / "new.sqlite3", dict.fromkeys(["a", *names], 9)),
    )
    assert f"{places(names[:10])}; and 3 more\n" in checked(new, old).stdout


def test_a_store_that_cannot_be_compared_is_no_proven_drop(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 20), build(tmp_path / "new.sqlite3", 20)
    with closing(sqlite3.connect(new.name)) as raw:
        raw.execute("DROP TABLE scores")
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_drop_that_the_seeds_do_not_agree_on_is_not_proven(tmp_path: Path) -> None:
    # Averaged over seeds 30 → 19 of 40 prompts; but one of three new seeds did no worse.
    old, new = build(tmp_path / "old.sqlite3", 30, 30, 30), build(tmp_path / "new.sqlite3", 30, 4, 23)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name, "--json"])
    (row,) = json.loads(result.stdout)["rows"]
    assert row["p_holm"] < 0.05
    assert row["high"] >= 0
    assert (row["seeds_before"], row["seeds_after"], row["dropped"]) == (3, 3, False)
    assert result.exit_code == 0


def test_stores_of_unequal_seeds_are_compared_and_a_single_seed_is_told(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 30, 31, 29), build(tmp_path / "new.sqlite3", 8)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 1
    assert "one training seed on a side" in result.stdout


def test_a_board_can_be_split_by_seed_and_its_file_stays(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 10, 20)
    write_board(store)
    before = store.board.read_text(encoding="utf-8")
    printed = CliRunner().invoke(app, ["leaderboard", "--store", store.name, "--per-seed"])
    assert "| dadpo, seed 0 | 25.0 (" in printed.stdout
    assert "| dadpo, seed 1 | 50.0 (" in printed.stdout
    assert store.board.read_text(encoding="utf-8") == before
    rows = json.loads(
        CliRunner().invoke(app, ["leaderboard", "--store", store.name, "--per-seed", "--format", "json"]).stdout
    )
    assert {r["contestant"]: r["win_rate"] for r in rows if r["win_rate"]} == {"dadpo, seed 0": 25, "dadpo, seed 1": 50}


def test_a_board_is_checked_whole_or_not_at_all(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 10)
    result = CliRunner().invoke(app, ["leaderboard", "--store", store.name, "--check", "--per-seed"])
    assert result.exit_code == 2
    assert "--check compares the board's file" in result.stderr


def test_stores_without_a_shared_row_are_not_compared(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 20), build(tmp_path / "new.sqlite3", 20, protocol="other")
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 2
    assert "share no row" in result.stderr


def test_equal_names_with_other_settings_are_not_compared(tmp_path: Path) -> None:
    old = build(tmp_path / "old.sqlite3", 30, settings={"beta": 0.1})
    new = build(tmp_path / "new.sqlite3", 8, settings={"beta": 50.0})
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 2
    later = build(tmp_path / "later.sqlite3", 8, settings={"beta": 0.1, "added": 1.0})
    result = CliRunner().invoke(app, ["check", "--store", later.name, "--against", old.name])
    assert "proven drop" in result.stdout


def test_a_board_that_would_change_does_not_pass_its_check(tmp_path: Path) -> None:
    store = build(tmp_path / "a.sqlite3", 10)
    write_board(store)
    check = ["leaderboard", "--store", store.name, "--check"]
    assert CliRunner().invoke(app, check).exit_code == 0
    with store.write() as session:
        for number in range(20):
            session.get_one(schema.Rating, ("j", f"dadpo0/{number}")).value = 2.0
    result = CliRunner().invoke(app, check)
    assert result.exit_code == 1
    assert "+| dadpo | 50.0" in result.stdout
