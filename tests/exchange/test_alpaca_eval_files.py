"""AlpacaEval's files: published figures from its annotations, outputs, and back."""

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from tests.exchange.stores import ORACLE, assert_round_trip, board, call, done, listed, refused, tables

FILES = ORACLE / "alpaca_eval"
published = pytest.mark.skipif(not FILES.is_dir(), reason="the published files are not beside the project")
ANNOTATIONS, OUTPUTS = "alpaca-eval-annotations", "alpaca-eval-outputs"


def swapped(instruction: str) -> bool:
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


def completion(first: float, second: float) -> dict[str, Any]:
    top = [{"token": "m", "logprob": math.log(first)}, {"token": "M", "logprob": math.log(second)}]
    return {"total_tokens": 40, "logprobs": {"content": [{"top_logprobs": top}]}}


def annotation(number: int, preference: float | None = 2.0, **changes: Any) -> dict[str, Any]:
    said = {
        "instruction": f"Question {number}?",
        "output_1": f"the baseline's answer {number}",
        "generator_1": "gpt4_1106_preview",
        "dataset": "helpful_base",
        "output_2": f"an answer {number}",
        "generator_2": "mine",
        "annotator": "a judge",
        "preference": preference,
        "time_per_example": 0.5,
        "raw_completion": None,
    }
    return {**said, **changes}


@published
def test_published_rows_are_reproduced_through_the_program(tmp_path: Path) -> None:
    """To 1e-6, and the counts of wins, losses and draws exactly."""
    files = sorted((FILES / "annotations").glob("*.json"))
    kept = done("import", ANNOTATIONS, *files, "--store", "a.sqlite3")
    # 3 contestants of 805 instructions; log-probs and seeded order give each stored preference again.
    assert kept["judged"] == {"weighted_alpaca_eval_gpt4_turbo": 2415}
    assert kept["remarks"] == []
    rows = {row["contestant"]: row for row in board("a.sqlite3")}
    for row in csv.DictReader((FILES / "leaderboard_rows.csv").open()):
        name = next(iter(row.values()))
        ours = rows["example" if name == "NullModel" else name]  # as that file calls its contestant
        for figure in ("win_rate", "standard_error"):
            assert ours[figure] == pytest.approx(float(row[figure]), abs=1e-6)
        counts = [ours["n_wins"], ours["n_wins_base"], ours["n_draws"], ours["prompts"]]
        assert counts == [int(row[name]) for name in ("n_wins", "n_wins_base", "n_draws", "n_total")]


@published
def test_preferences_of_every_usable_row_are_read_from_the_log_probs() -> None:
    from dadpo_bench.exchange.alpaca_eval import _from_logprobs, _order

    usable = 0
    for path in sorted((FILES / "annotations").glob("*.json")):
        for row in json.loads(path.read_text()):
            anew = _from_logprobs(row["raw_completion"], _order(row["instruction"]))
            if anew is not None:
                usable += 1
                assert anew == pytest.approx(row["preference"], abs=1e-6)
    assert usable == 2411  # of 2415; four have no raw completion


@published
def test_published_annotations_survive_export_and_import(tmp_path: Path) -> None:
    done("import", ANNOTATIONS, FILES / "annotations" / "claude-2.json", "--store", "a.sqlite3")
    assert_round_trip(tmp_path / "a.sqlite3", ANNOTATIONS, tmp_path / "theirs")
    assert_round_trip(tmp_path / "a.sqlite3", "jsonl", tmp_path / "ours")


def test_annotations_survive_export_and_import(tmp_path: Path) -> None:
    rows = [annotation(k, p) for k, p in enumerate([1.0, 2.0, 1.5, 0, 1.25, None])]
    rows[0]["raw_completion"] = "the judge's words"
    done("import", ANNOTATIONS, listed(tmp_path / "a.json", rows), "--store", "a.sqlite3")
    assert_round_trip(tmp_path / "a.sqlite3", ANNOTATIONS, tmp_path)


def test_a_preference_of_zero_is_a_draw_and_none_is_unscored(tmp_path: Path) -> None:
    rows = [annotation(k, p) for k, p in enumerate([2.0, 2.0, 0, None])]
    assert done("import", ANNOTATIONS, listed(tmp_path / "a.json", rows))["unscored"] == 1
    (row,) = (row for row in board("results/local.sqlite3") if row["contestant"] == "mine")
    assert (row["n_wins"], row["n_draws"], row["prompts"], row["unscored"]) == (2, 1, 3, 1)
    assert row["win_rate"] == pytest.approx(100 * 2.5 / 3)


def test_a_stored_preference_that_the_log_probs_deny_counts_and_is_told(tmp_path: Path) -> None:
    # P(first) = 0.9: the first shown wins; stored is the opposite.
    (number, _) = next((k, None) for k in range(50) if not swapped(f"Question {k}?"))
    row = annotation(number, 2.0, raw_completion=completion(0.9, 0.1))
    kept = done("import", ANNOTATIONS, listed(tmp_path / "a.json", [row]))
    # Not swapped: the baseline is shown first, so 2 − 0.9 = 1.1.
    assert "1 preference read from log-probs" in kept["remarks"][0]
    assert "a.json, record 1: 2.000000 is stored, 1.100000 follows" in kept["remarks"][1]
    assert board("results/local.sqlite3")[0]["win_rate"] == 100


def test_people_see_five_differences_and_how_many_more_there_are(tmp_path: Path) -> None:
    rows = [annotation(k, 1.4, raw_completion=completion(0.9, 0.1)) for k in range(8)]
    said = call("import", ANNOTATIONS, listed(tmp_path / "a.json", rows)).stdout
    assert "8 preferences read from log-probs" in said
    assert said.count("1.400000 is stored") == 5
    assert "and 3 more (--json shows all)" in said


def test_outputs_before_annotations_and_after_them_stand_on_one_board(tmp_path: Path) -> None:
    outputs = [
        {"instruction": f"Question {k}?", "output": f"an answer {k}", "generator": "mine", "dataset": "helpful_base"}
        for k in range(3)
    ]
    done("import", OUTPUTS, listed(tmp_path / "o.json", outputs), "--store", "first.sqlite3")
    done(
        "import",
        ANNOTATIONS,
        listed(tmp_path / "a.json", [annotation(k) for k in range(3)]),
        "--store",
        "first.sqlite3",
    )
    done("import", ANNOTATIONS, tmp_path / "a.json", "--store", "last.sqlite3")
    done("import", OUTPUTS, tmp_path / "o.json", "--store", "last.sqlite3")
    assert tables("first.sqlite3") == tables("last.sqlite3")
    assert len(tables("first.sqlite3")["contestants"]) == 2


def test_the_baselines_outputs_alone_begin_its_board(tmp_path: Path) -> None:
    output = {"instruction": "Question 0?", "output": "the baseline's answer 0", "generator": "text_davinci_003"}
    kept = done("import", OUTPUTS, listed(tmp_path / "o.json", [output]))
    assert (kept["task"], kept["baseline"]) == ("alpaca_eval", "text_davinci_003")
    done("import", ANNOTATIONS, listed(tmp_path / "a.json", [annotation(0, generator_1="text_davinci_003")]))
    assert [row["contestant"] for row in board("results/local.sqlite3")] == ["mine", "text_davinci_003"]


def test_outputs_survive_export_and_import(tmp_path: Path) -> None:
    outputs = [
        {"instruction": f"Question {k}?\u2028 é", "output": f"{name}: \1 <b>|", "generator": name, "dataset": "d"}
        for name in ("mine", "gpt4_1106_preview")
        for k in range(2)
    ]
    done("import", OUTPUTS, listed(tmp_path / "o.json", outputs), "--store", "a.sqlite3")
    assert_round_trip(tmp_path / "a.sqlite3", OUTPUTS, tmp_path)


def test_of_two_orders_the_mean_is_exported(tmp_path: Path) -> None:
    lines = [
        {"task": "t", "baseline": "b"},
        {"prompt": {"id": "p", "turns": ["Q?"]}},
        {"contestant": "b", "id": "p", "replies": ["x"]},
        {"contestant": "m", "id": "p", "replies": ["y"]},
        {"judge": "j", "kind": "pairwise"},
        {"by": "j", "of": "m", "id": "p", "order": "ab", "verdict": {"outcome": "win"}},
        {"by": "j", "of": "m", "id": "p", "order": "ba", "verdict": {"outcome": "tie"}},
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done("import", "jsonl", tmp_path / "own.jsonl")
    done("export", ANNOTATIONS)
    (row,) = json.loads((tmp_path / "export" / "j" / "m.json").read_text())
    assert row["preference"] == 1 + (1 + 0.5) / 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preference": 3}, "a.json, record 2: preference 3 is neither 0 nor from 1 to 2"),
        ({"preference": "high"}, "a.json, record 2: nothing of AlpacaEval (preference: a number expected, not text"),
        ({"preference": float("nan")}, "record 2: nothing of AlpacaEval (preference: Input should be a finite number"),
        ({"preference": 10**400}, "record 2: nothing of AlpacaEval (preference"),
        ({"output_2": None}, "record 2: nothing of AlpacaEval (output_2: text expected, not nothing"),
        ({"instruction": " "}, "record 2: a prompt needs at least one turn, and none may be empty"),
        ({"instruction": "a\0b"}, "record 2: it holds a NUL"),
        ({"generator_2": "x" * 300}, "generator_2: a name has 1 to 200 characters, all of them printable"),
        ({"generator_2": "\x1b[31mred"}, "generator_2: a name has 1 to 200 characters, all of them printable"),
        ({"generator_2": " "}, "generator_2: a name has 1 to 200 characters"),
        ({"dataset": "x" * 81}, "dataset: String should have at most 80 characters"),
        ({"generator_2": "gpt4_1106_preview"}, "record 2: 'gpt4_1106_preview' is compared with itself"),
        ({"generator_1": "another"}, "another baseline (another and gpt4_1106_preview); choose with --baseline"),
        ({"instruction": "Question 0?"}, "record 2: a second annotation of 'mine' on the same instruction"),
        (
            {"instruction": "Question 0?", "annotator": "b", "output_2": "else"},
            "answered the same instruction otherwise",
        ),
    ],
)
def test_a_wrong_record_is_named_by_its_place(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    rows = [annotation(0), annotation(1, **changes)]
    assert said in refused("import", ANNOTATIONS, listed(tmp_path / "a.json", rows))
    assert not Path("results").exists()


def test_of_several_baselines_one_is_chosen(tmp_path: Path) -> None:
    rows = [annotation(0), annotation(0, generator_1="other", output_1="else")]
    kept = done("import", ANNOTATIONS, listed(tmp_path / "a.json", rows), "--baseline", "other")
    assert (kept["baseline"], kept["judged"]) == ("other", {"a judge": 1})


@published
def test_published_coefficients_give_the_published_length_controlled_rates(tmp_path: Path) -> None:
    done("import", ANNOTATIONS, *sorted((FILES / "annotations").glob("*.json")), "--rename", "example=NullModel")
    given = ["--length-control", FILES / "length_control_coefficients.csv"]
    given += ["--difficulty", FILES / "instruction_difficulty.json"]
    rows = {row["contestant"]: row for row in json.loads(call("leaderboard", "--format", "json", *given).stdout)}
    for name, rate in (("alpaca-7b", 5.875487163), ("claude-2", 28.155196141)):
        assert rows[name]["length_controlled_win_rate"] == pytest.approx(rate, abs=1e-6)
        assert rows[name]["length_controlled_se"] is None
    # 86.458 is published, but was not made from the published coefficients.
    assert rows["NullModel"]["length_controlled_win_rate"] == pytest.approx(86.325, abs=1e-3)


def test_a_contestant_may_be_given_another_name(tmp_path: Path) -> None:
    file = listed(tmp_path / "a.json", [annotation(1), annotation(2, 1.0)])
    kept = done("import", ANNOTATIONS, file, "--rename", "mine=yours")
    assert set(kept["contestants"]) == {"yours", "gpt4_1106_preview"}
    assert "unknown contestant 'mein'" in refused("import", ANNOTATIONS, file, "--rename", "mein=yours")
    assert "the same name" in refused("import", ANNOTATIONS, file, "--rename", "mine=gpt4_1106_preview")
    assert "write it as OLD=NEW" in refused("import", ANNOTATIONS, file, "--rename", "mine")
