"""The board from the command line: ranks, columns, categories, CSV, other people's coefficients and labels."""

import csv
import io
import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from typer.testing import CliRunner

from dadpo_bench import scoring
from dadpo_bench.cli import app
from dadpo_bench.exchange import JudgedBy, Judgment, Parcel
from dadpo_bench.exchange.stored import keep
from dadpo_bench.judging import judgments
from dadpo_bench.leaderboard.sections import View, sections
from dadpo_bench.lenses import Lenses, _counter
from dadpo_bench.places import REFERENCE_STORE
from dadpo_bench.scores import Divergence, rows_of
from dadpo_bench.store import open_store, schema
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt, Rating
from tests.leaderboard.open_boards import made, rated, response
from tests.regression.boards import Stands, panel_of

# Of 40 prompts: "best" wins 36, "good" and "fair" 20 and 18 of the same, "poor" 2.
BOARD = {
    "best": "W" * 36 + "L" * 4,
    "good": "W" * 20 + "L" * 20,
    "fair": "W" * 18 + "L" * 22,
    "poor": "W" * 2 + "L" * 38,
}


def ran(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def rows(store: str, *more: str) -> dict[str, dict[str, Any]]:
    found = json.loads(ran("leaderboard", "--store", store, "--format", "json", *more))
    return {row["contestant"]: row for row in found}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("board") / "x.sqlite3", {"j": BOARD})


def test_who_cannot_be_told_apart_shares_a_rank(store: str) -> None:
    # best beats all by 16 points and more; good and fair differ in two prompts; poor is beaten by three.
    assert {name: row["rank"] for name, row in rows(store).items()} == {
        "best": 1,
        "good": 2,
        "fair": 2,
        "poor": 4,
        "base": None,
    }


def test_a_rating_is_the_logit_of_the_win_rate(store: str) -> None:
    found = rows(store)
    # 400·log10(20/20) = 0 and 400·log10(36/4) = 381.7 above the baseline's 1000.
    assert found["good"]["rating"] == pytest.approx(1000)
    assert found["best"]["rating"] == pytest.approx(1381.697, abs=1e-3)
    assert found["base"]["rating"] == 1000


def test_a_column_that_says_nothing_of_anybody_is_left_out(store: str) -> None:
    board = ran("leaderboard", "--store", store, "--format", "md")
    header = next(line for line in board.split("\n") if line.startswith("| rank"))
    assert "length-controlled" in header
    assert "| score |" not in header
    assert "KL from teacher" not in board


def test_a_category_has_its_rows_and_no_interval_under_twenty_prompts(store: str, tmp_path: Path) -> None:
    small = made(tmp_path / "small.sqlite3", {"j": {name: letters[:20] for name, letters in BOARD.items()}})
    for where, known in ((store, True), (small, False)):
        found = json.loads(ran("leaderboard", "--store", where, "--format", "json", "--by-category"))
        parts = [row for row in found if row["category"] and row["contestant"] == "good"]
        assert [row["category"] for row in parts] == ["a", "b"]
        assert all((row["ci_low"] is not None) == known for row in parts)
        assert sum(row["prompts"] for row in parts) == (40 if known else 20)


def test_rows_come_as_csv_too(store: str) -> None:
    found = list(csv.DictReader(io.StringIO(ran("leaderboard", "--store", store, "--format", "csv"))))
    assert [row["contestant"] for row in found] == ["best", "good", "fair", "poor", "base"]
    assert float(found[1]["win_rate"]) == 50


def test_a_formula_in_a_name_stays_text_in_csv(tmp_path: Path) -> None:
    hostile = made(tmp_path / "x.sqlite3", {"j": {"=1+1": "WL" * 10}})
    found = list(csv.DictReader(io.StringIO(ran("leaderboard", "--store", hostile, "--format", "csv"))))
    assert found[0]["contestant"] == "'=1+1"


def test_a_task_or_a_judge_is_shown_alone_and_a_wrong_name_is_told(store: str) -> None:
    assert "### t (out-of-domain)" in ran("leaderboard", "--store", store, "--task", "t", "--judge", "j")
    for option in ("--task", "--judge"):
        result = CliRunner().invoke(app, ["leaderboard", "--store", store, option, "nobody"])
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"unknown {option[2:]} 'nobody'" in result.stderr


def test_a_board_that_is_only_looked_at_leaves_its_file(store: str) -> None:
    ran("leaderboard", "--store", store)
    before = Path(store).with_suffix(".md").read_bytes()
    ran("leaderboard", "--store", store, "--by-category")
    assert Path(store).with_suffix(".md").read_bytes() == before


def test_given_coefficients_take_the_place_of_a_fit(store: str, tmp_path: Path) -> None:
    coefficients, difficulty = tmp_path / "c.csv", tmp_path / "d.json"
    coefficients.write_text(
        ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\ngood,-1.0,0.0,0.0\n"
    )
    difficulty.write_text(json.dumps([{"instruction": f"question {i}", "difficulty": 1.0} for i in range(40)]))
    found = rows(store, "--length-control", str(coefficients), "--difficulty", str(difficulty))
    # σ(0·1 + 0) = ½, and coefficients alone tell no error.
    assert found["good"]["length_controlled_win_rate"] == pytest.approx(50)
    assert found["good"]["length_controlled_se"] is None
    assert found["good"]["length_control"] == "given coefficients"
    assert found["fair"]["length_control"] == "fitted"


def test_coefficients_need_difficulties(store: str) -> None:
    result = CliRunner().invoke(app, ["leaderboard", "--store", store, "--length-control", "x.csv"])
    assert (result.exit_code, "go together" in result.stderr) == (2, True)


def coefficients_of(folder: Path, *names: str, prompts: int = 40) -> list[str]:
    """Files of coefficients 0 for these, and of difficulties of so many prompts, as options."""
    coefficients, difficulty = folder / "c.csv", folder / "d.json"
    head = ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\n"
    coefficients.write_text(head + "".join(f"{name},0,0,0\n" for name in names))
    difficulty.write_text(json.dumps([{"instruction": f"question {i}", "difficulty": 1.0} for i in range(prompts)]))
    return ["--length-control", str(coefficients), "--difficulty", str(difficulty)]


def test_coefficients_of_the_baseline_are_nobodys(store: str, tmp_path: Path) -> None:
    found = rows(store, *coefficients_of(tmp_path, "base", "good"))
    assert (found["base"]["length_controlled_win_rate"], found["base"]["length_control"]) == (None, "")
    assert found["good"]["length_controlled_win_rate"] == pytest.approx(50)


def test_a_board_whose_difficulties_are_not_told_has_an_empty_cell_and_says_so(store: str, tmp_path: Path) -> None:
    options = coefficients_of(tmp_path, "good", prompts=38)
    assert rows(store, *options)["good"]["length_controlled_win_rate"] is None
    board = ran("leaderboard", "--store", store, *options)
    assert "Not length-controlled by the given coefficients: good; a length-controlled win rate needs" in board
    assert "2 have none, the first 'question 38'" in board
    assert next(line for line in board.split("\n") if "| fair |" in line).split("|")[4].strip().startswith("4")


def test_coefficients_are_nothing_to_a_board_that_only_rates(tmp_path: Path) -> None:
    rated = made(tmp_path / "x.sqlite3", {"j": BOARD})
    task = Task(name="t", domain="out", split="heldout", prompts=(Prompt(id="0", turns=("question 0",)),))
    answers = {"good": {task.prompts[0].key: response(task.prompts[0], "good", 0, 1)}}
    said = JudgedBy("k", "pointwise", {"judge": "k"}, [Judgment("good", task.prompts[0].key, Rating(value=7.0))])
    with closing(open_store(rated)) as opened:
        keep(opened, Parcel(task, answers, "", [said]))
    found = json.loads(ran("leaderboard", "--store", rated, "--format", "json", *coefficients_of(tmp_path, "good")))
    by_judge = {row["judge"]: row for row in found if row["contestant"] == "good"}
    assert by_judge["j"]["length_controlled_win_rate"] == pytest.approx(50)
    assert by_judge["k"]["length_controlled_win_rate"] is None


def test_a_board_of_several_stores_is_seen_through_one_lens() -> None:
    words = scoring.TokenCounter("words", lambda text: len(text.split()))
    with patch("dadpo_bench.lenses._counter", lambda models: words):
        board = ran(
            "leaderboard", "--style", "--no-length-controlled", "--store", str(REFERENCE_STORE), "--format", "md"
        )
    assert board.count("tokens counted by words") == 4  # two tasks of either store


def test_tokens_are_counted_by_the_students_tokenizer_where_it_is_at_hand(
    tiny_models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    counter = _counter((str(tmp_path / "gone"), str(tiny_models[1])))
    assert counter.name == f"the tokenizer of {tiny_models[1].name}"
    assert counter.count("some words") > 0


def test_a_category_has_no_divergence_of_its_own() -> None:
    teacher = Stands("teacher", "teacher")
    panel = panel_of("pairwise", [teacher, Stands("dpo", orders="WW WL LL", kl=(0.4, 0.5))])
    whole, part = ({row.contestant: row for row in rows_of(one)}["dpo"] for one in (panel, panel.of("writing")))
    assert whole.divergence == Divergence(0.4, 0.5)
    assert part.divergence == Divergence()


def test_an_entrant_of_the_baselines_name_is_not_the_baseline() -> None:
    panel = panel_of(
        "pairwise", [Stands("teacher", "teacher"), Stands("teacher", "entrant", orders="WW WL LL", seed=1)]
    )
    found = {row.contestant: row.summary.win_rate for row in rows_of(panel)}
    assert found == {"teacher (teacher)": None, "teacher (entrant)": pytest.approx(50)}


@pytest.fixture(scope="module")
def two_judges(tmp_path_factory: pytest.TempPathFactory) -> str:
    # The stronger one labelled the same 40 prompts, and calls ten of good's twenty wins losses.
    strong = {"good": "W" * 10 + "L" * 30, "best": BOARD["best"]}
    return made(tmp_path_factory.mktemp("labels") / "x.sqlite3", {"weak": BOARD, "strong": strong})


def test_a_win_rate_is_corrected_by_a_stronger_judges_labels(two_judges: str) -> None:
    found = json.loads(
        ran("leaderboard", "--store", two_judges, "--judge", "weak", "--format", "json", "--labels", "strong")
    )
    good = next(row for row in found if row["contestant"] == "good")
    # All 40 prompts are labelled, so the labels' own mean is the answer: 10 of 40.
    assert good["corrected_win_rate"] == pytest.approx(25)
    assert good["corrected_low"] < 25 < good["corrected_high"]
    assert good["corrected_labels"] == 40
    assert next(row for row in found if row["contestant"] == "poor")["corrected_win_rate"] is None


def labelled(path: Path, *pairs: tuple[int, str, str, str], **more: str) -> list[str]:
    """A file of labels: prompt, first and second contestant, label; as an option."""

    def text(name: str, place: int) -> str:
        return f"{name} {place} " + ("word " * (1 + place % 5)).strip()

    records = [
        {"turns": [f"question {i}"], "first": [text(one, i)], "second": [text(other, i)], "label": label, **more}
        for i, one, other, label in pairs
    ]
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return ["--labels", str(path)]


def test_labels_may_be_a_file_of_peoples_words(store: str, tmp_path: Path) -> None:
    good = rows(store, *labelled(tmp_path / "l.jsonl", *[(i, "base", "good", "second") for i in range(25)]))["good"]
    assert good["corrected_labels"] == 25
    assert good["corrected_win_rate"] > good["win_rate"]


def test_too_few_labels_correct_nothing_and_are_counted(store: str, tmp_path: Path) -> None:
    options = labelled(tmp_path / "labels.jsonl", *[(i, "base", "good", "tie") for i in range(5)])
    good = rows(store, *options)["good"]
    assert (good["corrected_win_rate"], good["corrected_labels"]) == (None, 5)
    board = ran("leaderboard", "--store", store, *options)
    assert "Not corrected, for prompts with a label: best 0, good 5, fair 0, poor 0; under 20 the" in board


def test_labels_of_nothing_on_the_board_are_refused(store: str, tmp_path: Path) -> None:
    options = labelled(tmp_path / "labels.jsonl", *[(i, "base", "nobody", "second") for i in range(50)])
    result = CliRunner().invoke(app, ["leaderboard", "--store", store, *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none of them is of a comparison" in result.stderr


def test_all_votes_on_a_comparison_count_whatever_else_their_lines_tell(store: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    pairs = [(i, "base", "poor", "second") for i in range(40)]
    labelled(path, *pairs)
    labelled(path, *pairs, system="Be brief.")
    options = labelled(path, *[(i, one, other, "first") for i, one, other, _ in pairs], reference="no words")
    # Two of three votes for poor.
    assert rows(store, *options)["poor"]["corrected_win_rate"] == pytest.approx(200 / 3)


def test_equal_responses_are_labelled_a_half(tmp_path: Path) -> None:
    same = made(tmp_path / "x.sqlite3", {"j": {"twin": "T" * 20}}, twins=("twin",))
    options = labelled(tmp_path / "labels.jsonl", *[(i, "base", "base", "first") for i in range(20)])
    assert rows(same, *options)["twin"]["corrected_win_rate"] == pytest.approx(50)


def test_a_label_is_held_against_the_judge_on_its_own_seed() -> None:
    # The labels are the judge's own words on seed 0, where 9 of 24 are won; on seeds 1 and 2 three are.
    stands = [
        Stands("dpo", seed=0, orders="WW LL LL WW LL LL WW LL"),
        *(Stands("dpo", seed=seed, orders="WW LL LL LL LL LL LL LL") for seed in (1, 2)),
    ]
    panel = panel_of("pairwise", [Stands("teacher", "teacher"), *stands])
    (dpo,) = panel.contestants
    outcomes = scoring.prompt_outcomes(panel.orders(dpo))
    labels = np.where(np.arange(3)[:, None] == 0, outcomes, np.nan)
    lens = Lenses(labels={(("",), "", ""): [1.0]})
    with patch.object(Lenses, "_labels_of", lambda *given: labels):
        assert lens.corrected(panel, dpo, outcomes).corrected_win_rate == pytest.approx(100 * 15 / 72)


def test_several_judges_of_a_name_are_told_apart(two_judges: str, tmp_path: Path) -> None:
    store = tmp_path / "x.sqlite3"
    store.write_bytes(Path(two_judges).read_bytes())
    with closing(open_store(str(store))) as opened, opened.write() as session:
        session.add(schema.Judge(key="0" * 32, name="strong", kind="pairwise", proxy=False, identity={}))
    result = CliRunner().invoke(app, ["leaderboard", "--store", str(store), "--labels", "strong"])
    assert result.exit_code == 2
    first, second = re.findall(r"strong \w{6}", result.stderr)
    assert first == "strong 000000"
    found = json.loads(
        ran("leaderboard", "--store", str(store), "--judge", "weak", "--format", "json", "--labels", second)
    )
    assert {row["contestant"]: row["corrected_labels"] for row in found}["good"] == 40


def test_labels_and_responses_of_a_board_are_read_once(two_judges: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    own = judgments.Judgments.__init__
    monkeypatch.setattr(judgments.Judgments, "__init__", lambda *given: (built.append(1), own(*given))[1])
    ran("leaderboard", "--store", two_judges, "--judge", "weak", "--by-category", "--labels", "strong")
    assert len(built) == 2  # what the board's judge said, and the stronger one


def test_judges_of_a_store_are_held_against_each_other(two_judges: str) -> None:
    (found,) = json.loads(ran("agreement", "--store", two_judges, "--json"))
    # Of 80 comparisons that both scored they differ in good's ten.
    assert found["comparisons"] == 80
    assert found["agreement"]["share"] == pytest.approx(87.5)
    # Both say W: 10 + 36, both say L: 20 + 4; chance: (56·46 + 24·34)/80² = 0.53; κ = (0.875 − 0.53)/0.47.
    assert found["cohen_kappa"] == pytest.approx((0.875 - 0.53) / 0.47)


def test_who_is_rated_alone_is_ranked_by_ratings_and_differences_are_in_the_judges_unit(tmp_path: Path) -> None:
    store = rated(tmp_path / "r.sqlite3", {"j": {"good": [9.0, 8.0] * 15, "poor": [2.0] * 30}})
    assert {name: row["rank"] for name, row in rows(store).items()} == {"good": 1, "poor": 2}
    board = ran("leaderboard", "--store", store, "--format", "md")
    assert "in the judge's own unit" in board
    # 8.5 less 2.0; no flip of 30 signs drawn does as much: 1 of 10,001.
    assert "| t | good − poor | +6.50 | +6.33 to +6.67 | < 0.001 | < 0.001 | yes |" in board


def test_a_mean_rating_has_an_interval_over_prompts(tmp_path: Path) -> None:
    store = rated(tmp_path / "r.sqlite3", {"j": {"even": [9.0, 8.0] * 50, "same": [7.0] * 100}})
    found = rows(store)
    # Deviation ½ over 100 prompts: an error of 0.05, twice on either side.
    assert (found["even"]["single_low"], found["even"]["single_high"]) == pytest.approx((8.4, 8.6), abs=0.011)
    assert (found["same"]["single_low"], found["same"]["single_high"]) == (7, 7)


def test_judges_of_single_answers_agree_where_they_rate_the_same_contestant_higher(tmp_path: Path) -> None:
    first = {"a": [9.0, 8.0, 7.0, 6.0], "b": [5.0, 8.0, 8.0, 2.0]}  # a, tie, b, a
    second = {"a": [4.0, 5.0, 3.0, 1.0], "b": [3.0, 5.0, 2.0, 7.0]}  # a, tie, a, b
    (found,) = json.loads(
        ran("agreement", "--store", rated(tmp_path / "r.sqlite3", {"x": first, "y": second}), "--json")
    )
    assert (found["comparisons"], found["agreement"]["share"]) == (4, 50)
    assert found["agreement_without_ties"]["share"] == pytest.approx(100 / 3)


def test_what_is_proven_does_not_hang_on_the_tasks_shown() -> None:
    reference = "results/reference.sqlite3"

    def corrected(*more: str) -> dict[tuple[str, str], float]:
        with closing(open_store(reference, create=False)) as store, store.read() as session:
            (section,) = sections(session, View(fit_lengths=False, **dict([more] if more else [])))
            here = [d for d in section.differences if d["task"] == "assistance"]
            return {(d["first"], d["second"]): d["p_holm"] for d in here}

    assert corrected() == corrected("task", "assistance")


def test_one_judge_agrees_with_nobody(store: str) -> None:
    result = CliRunner().invoke(app, ["agreement", "--store", store])
    assert (result.exit_code, "no two judges" in result.stderr) == (2, True)
