"""AlpacaEval 2's published length-controlled win rates, from its published coefficients and difficulties."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench.errors import UserError
from dadpo_bench.scoring.published_length_control import (
    Coefficients,
    published_win_rate,
    read_coefficients,
    read_difficulty,
)

ORACLE = Path(__file__).parents[3] / "shared" / "oracle" / "alpaca_eval"
published = pytest.mark.skipif(not ORACLE.is_dir(), reason="the published figures are not beside the project")
HEADER = ["", "np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"]


def ours_and_published(name: str) -> tuple[float, float]:
    coefficients = read_coefficients(ORACLE / "length_control_coefficients.csv")
    difficulty = read_difficulty(ORACLE / "instruction_difficulty.json")
    annotations = json.loads((ORACLE / "annotations" / f"{name}.json").read_text())
    rows = {row[""]: row for row in csv.DictReader((ORACLE / "leaderboard_rows.csv").read_text().splitlines())}
    ours = published_win_rate(coefficients[name], difficulty, [a["instruction"] for a in annotations])
    return ours, float(rows[name]["length_controlled_winrate"])


@published
@pytest.mark.parametrize("name", ["alpaca-7b", "claude-2"])
def test_a_published_length_controlled_win_rate_is_reproduced(name: str) -> None:
    ours, theirs = ours_and_published(name)
    assert ours == pytest.approx(theirs, abs=1e-9)


@published
def test_the_null_models_published_value_is_not_that_of_its_published_coefficients() -> None:
    ours, theirs = ours_and_published("NullModel")
    assert ours == pytest.approx(86.3250, abs=1e-4)
    assert theirs - ours == pytest.approx(0.1328, abs=1e-4)


def test_a_win_rate_worked_by_hand() -> None:
    # Logits −ln 3 ± 2·ln 3: ln 3 and −3·ln 3, so 3/4 and 1/28; their mean is 11/28.
    # The coefficient of length plays no part at equal lengths.
    coefficients = Coefficients(length=-2.0, difficulty=2.0, bias=-math.log(3))
    difficulty = {"easy": math.log(3), "hard": -math.log(3)}
    assert published_win_rate(coefficients, difficulty, ["easy", "hard"]) == pytest.approx(100 * 11 / 28)
    assert published_win_rate(Coefficients(0, 0, 0), difficulty, ["easy", "hard"]) == 50  # the baseline's own row


def test_a_prompt_without_a_difficulty_is_named() -> None:
    with pytest.raises(UserError, match="2 have none, the first 'odd'"):
        published_win_rate(Coefficients(0, 0, 0), {"known": 0.0}, ["known", "odd", "other"])


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip),
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3),
    )
)
def test_coefficients_come_back_as_written_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[float, float, float]]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *([name, *map(repr, numbers)] for name, numbers in rows.items())])
    path = tmp_path_factory.mktemp("coefficients") / "c.csv"
    path.write_bytes(text.getvalue().encode())
    assert read_coefficients(path) == rows


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(",".join([*HEADER[:1], "other", *reversed(HEADER[1:])]) + "\nm,x,3,2,1\n\n")
    assert read_coefficients(tmp_path / "c.csv") == {"m": Coefficients(length=1, difficulty=2, bias=3)}


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ("m,1,2\n", "line 2: column 4 holds nothing"),
        ("m,1,2,3\nn,1,x,3\n", "line 3: column 3 holds 'x'"),
        ("m,1,2,inf\n", "line 2: column 4 holds 'inf'"),
        ("m,1,2,3\nm,1,2,3\n", "line 3: 'm' has coefficients already"),
        (",1,2,3\n", "line 2: the first column names no contestant"),
        ('m,1,2,"3\n', "line 2: not valid CSV"),
    ],
)
def test_a_bad_row_of_coefficients_is_named_by_file_and_line(tmp_path: Path, rows: str, where: str) -> None:
    (tmp_path / "c.csv").write_text(",".join(HEADER) + "\n" + rows)
    with pytest.raises(UserError, match=f"c.csv, {where}"):
        read_coefficients(tmp_path / "c.csv")


@pytest.mark.parametrize("content", [b"", b"name,win_rate\nm,1\n"])
def test_another_table_is_no_file_of_coefficients(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.csv").write_bytes(content)
    with pytest.raises(UserError, match="line 1: no column 'np"):
        read_coefficients(tmp_path / "c.csv")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe")
    for read, name in ((read_coefficients, "c.csv"), (read_coefficients, "none.csv"), (read_difficulty, "none.json")):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('[{"instruction": "a", "difficulty": 1}, {"instruction": "b"}]', "record 2"),
        ('[{"instruction": "a", "difficulty": true}]', "record 1"),
        ('[{"instruction": "a", "difficulty": NaN}]', "record 1"),
        ('[{"instruction": "a", "difficulty": "1"}]', "record 1"),
        ('[{"instruction": 1, "difficulty": 1}]', "record 1"),
        ("[1]", "record 1"),
        ('[{"instruction": "a", "difficulty": 1}, {"instruction": "a", "difficulty": 2}]', "record 2: its instruction"),
        ("{}", "one list"),
        ("[", "not valid JSON"),
    ],
)
def test_a_bad_difficulty_is_named_by_file_and_record(tmp_path: Path, content: str, where: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(UserError, match=rf"d\.json.*{where}"):
        read_difficulty(tmp_path / "d.json")
