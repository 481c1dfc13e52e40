"""Labelled pairs in the forms in which they are published."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from dadpo_bench.errors import UserError
from dadpo_bench.judging.labelled import read_pairs

OWN = {"turns": ["Tea?"], "first": ["Yes."], "second": ["No."], "label": "second"}
JUDGEBENCH = {"question": "1+1?", "response_A": "2", "response_B": "3", "label": "A>B", "source": "maths"}
ALPACA_EVAL = {"instruction": "Tea?", "output_1": "Yes.", "output_2": "No.", "preference": 2, "annotator": "x"}


def conversation(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 9, texts, strict=False)]


MT_BENCH = {
    "question_id": 81,
    "winner": "model_b",
    "turn": 1,
    "conversation_a": conversation("Hi?", "A1", "More?", "A2"),
    "conversation_b": conversation("Hi?", "B1", "More?", "B2"),
}


def write(folder: Path, *records: Any, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@pytest.mark.parametrize(
    ("record", "turns", "better"),
    [
        (OWN, ("Tea?",), "No."),
        (JUDGEBENCH, ("1+1?",), "2"),
        (ALPACA_EVAL, ("Tea?",), "No."),
        (MT_BENCH, ("Hi?",), "B1"),
        ({**MT_BENCH, "turn": 2}, ("Hi?", "More?"), "B1\n\nB2"),
        ({**JUDGEBENCH, "label": "B>A"}, ("1+1?",), "3"),
        ({**ALPACA_EVAL, "preference": 1.2}, ("Tea?",), "Yes."),
    ],
)
def test_a_record_says_which_response_is_better(
    tmp_path: Path, record: dict[str, Any], turns: tuple[str, ...], better: str
) -> None:
    (pair,) = read_pairs(write(tmp_path, record)).pairs
    assert pair.first.prompt.turns == turns
    (label,) = pair.labels
    assert (pair.first if label > 0.5 else pair.second).text == better


@pytest.mark.parametrize(
    "record",
    [{**OWN, "label": "tie"}, {**MT_BENCH, "winner": "tie (inconsistent)"}, {**ALPACA_EVAL, "preference": 0}],
)
def test_a_tie_is_a_half(tmp_path: Path, record: dict[str, Any]) -> None:
    assert read_pairs(write(tmp_path, record)).pairs[0].labels == (0.5,)


def test_votes_on_one_pair_are_gathered_whichever_way_round_it_was_shown(tmp_path: Path) -> None:
    turned = {**OWN, "first": OWN["second"], "second": OWN["first"], "label": "first"}
    found = read_pairs(write(tmp_path, OWN, turned, {**OWN, "labels": ["tie", "first"]}))
    (pair,) = found.pairs
    favours_no = [label if pair.first.text == "No." else 1 - label for label in pair.labels]
    assert favours_no == [1, 1, 0.5, 0]


def test_lists_and_parquet_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([JUDGEBENCH]))
    parquet.write_table(pyarrow.Table.from_pylist([MT_BENCH]), tmp_path / "human.parquet")
    assert read_pairs(tmp_path / "list.json").format == "JudgeBench"
    found = read_pairs(tmp_path / "human.parquet")
    assert (found.name, found.format, len(found.pairs)) == ("human", "MT-Bench", 1)


def test_the_same_pairs_and_labels_have_the_same_key(tmp_path: Path) -> None:
    one, same = read_pairs(write(tmp_path, OWN)), read_pairs(write(tmp_path, OWN, name="other.jsonl"))
    other = read_pairs(write(tmp_path, {**OWN, "label": "tie"}))
    assert one.key == same.key != other.key


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"question": "?"}], "line 1: labelled pairs in no known format"),
        (
            [OWN, {**OWN, "label": "better"}],
            "line 2: no dadpo-bench record (label: 'first', 'second' or 'tie' expected, not 'better'",
        ),
        ([OWN, {"turns": ["?"]}], "line 2: no dadpo-bench record (first: it is missing"),
        ([{"turns": "?", "first": "a", "second": "b"}], "line 1: no dadpo-bench record (label: it is missing"),
        ([{**OWN, "turns": 5}], "pairs.jsonl, line 1: no dadpo-bench record (turns: a list expected, not a number)"),
        ([{**OWN, "turns": ["?", 5]}], "line 1: no dadpo-bench record (turns.1: text expected, not a number)"),
        ([{**JUDGEBENCH, "response_B": 3}], "no JudgeBench record (response_B: text expected, not a number)"),
        ([{**MT_BENCH, "winner": "both"}], "no MT-Bench record (winner: 'model_a', 'model_b' or 'tie' expected"),
        ([{**MT_BENCH, "conversation_a": [{"role": "user"}]}], "(conversation_a.0.content: it is missing)"),
        ([{**OWN, "first": ["a", "b"]}], "line 1: each turn needs one reply of either side"),
        ([{**ALPACA_EVAL, "preference": 7}], "line 1: no AlpacaEval record (preference: 7 is neither"),
        ([{**OWN, "turns": "\ud800"}], "line 1: a \\ud800"),
        ([], "holds no labelled pair"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, records: list[Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_pairs(write(tmp_path, *records))
    assert said in str(caught.value)


def test_alpaca_evals_own_annotations_load_as_they_are() -> None:
    path = Path(__file__).parents[3] / "shared" / "oracle" / "alpaca_eval" / "annotations" / "alpaca-7b.json"
    if not path.is_file():
        pytest.skip("no real annotations here")
    found = read_pairs(path)
    assert (found.format, len(found.pairs)) == ("AlpacaEval", 805)
