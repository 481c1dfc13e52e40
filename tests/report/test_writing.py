"""Where a report may be written, and what is never replaced."""

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.report.charts import Estimate, Line, curves, forest

STORE = ("--store", "results/reference.sqlite3")


def report(folder: Path | str) -> Result:
    return CliRunner().invoke(app, ["report", *STORE, "--out", str(folder)])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "report"
    assert report(folder).exit_code == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_store_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    assert report(tmp_path / "again").exit_code == 0
    assert contents(tmp_path / "again") == contents(written)


def test_an_ordinary_report_is_small(written: Path) -> None:
    assert sum(map(len, contents(written).values())) < 2_000_000


def test_an_earlier_report_is_replaced(written: Path) -> None:
    (written / "index.html").write_text("old")
    assert report(written).exit_code == 0
    assert "<h1>Overview</h1>" in (written / "index.html").read_text()
    assert [path.name for path in written.parent.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["NOTES.md", "data/index.js", "src/thesis.tex"])
def test_a_folder_that_holds_anything_else_stays_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    result = report(tmp_path)
    assert (result.exit_code, f"holds {Path(name).name}, which is no part of a report" in result.stderr) == (2, True)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_note_put_into_a_report_is_kept(written: Path, tmp_path: Path) -> None:
    assert report(tmp_path / "r").exit_code == 0
    (tmp_path / "r" / "NOTES.md").write_text("mine")
    assert report(tmp_path / "r").exit_code == 2
    assert (tmp_path / "r" / "NOTES.md").read_text() == "mine"


def test_the_folder_one_stands_in_and_a_link_to_one_may_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(Path("results/reference.sqlite3").resolve())
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", str(tmp_path / "link")):
        assert CliRunner().invoke(app, ["report", "--store", store, "--out", out]).exit_code == 0
        assert (tmp_path / "here" / "index.html").is_file()


def test_a_store_without_scores_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", "--store", str(tmp_path / "none.sqlite3")])
    assert (result.exit_code, "no store at" in result.stderr) == (2, True)


def test_a_name_is_drawn_as_it_is() -> None:
    name = 'a style="x:y" #000001 <b> $x_1$'
    drawn = forest("t", [("t", [Estimate(name, 1.0)])], "%")
    assert 'a style="x:y" #000001 &lt;b&gt; $x_1$' in drawn.svg
    assert drawn.rows[0][0] == name


@pytest.mark.filterwarnings("error")
def test_curves_hold_whatever_a_training_reported() -> None:
    drawn = curves("loss", "", [Line("愛", [1, 2, 3, 4], [1.0, math.nan, math.inf, 1e308], 0)])
    assert [row[1] for row in drawn.rows] == ["1", "–", "–", "1e+308"]
