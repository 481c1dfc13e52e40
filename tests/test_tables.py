"""Tables for people lose no figure on a narrow terminal."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.regression import Compared, Comparison, show
from dadpo_bench.tables import print_table
from tests.planning.paper import CONFIGS


def table() -> Table:
    made = Table(title="peak, GB", padding=(0, 0))
    made.add_column("stage")
    for name in ("opti-\nmiser", "KV\ncache", "total"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_row("train: dpo, dadpo", "1,043.0", "–", "1,107.4")
    return made


def printed(width: int) -> list[str]:
    said = io.StringIO()
    print_table(Console(file=said, width=width), table())
    return said.getvalue().splitlines()


def test_names_wrap_before_figures_are_cut() -> None:
    # The longest word of the names, "train:", and the figures: 6 + 7 + 5 + 7, with five borders 30.
    for width in (60, 30):
        assert "1,043.0│    –│1,107.4" in "\n".join(printed(width))


def test_rows_become_blocks_where_the_figures_do_not_fit() -> None:
    assert printed(29) == ["peak, GB", "train: dpo, dadpo", "  optimiser: 1,043.0;", "  total: 1,107.4"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_plan_is_whole_at_any_width(width: int) -> None:
    given = ["--gpu", "h100-80gb", "--config", f"teacher={CONFIGS / 'vicuna-7b-v1.5.json'}"]
    shown = CliRunner().invoke(app, ["plan", "vicuna-7b-pruned20", *given], env={"COLUMNS": str(width)}).stdout
    assert "…" not in shown
    for words in ("107.0", "2,190,324", "teacher-responses", "7.9e+16"):
        assert words in shown


def test_a_check_is_whole_on_a_narrow_terminal() -> None:
    figures = (72, 3, 3, 27.8, 26.1, -1.7, -12.3, 8.9, 0.4, 1.0)
    row = Compared("r", "pmi", "assistance", "dpo-matched", "win rate", *figures, "same")
    said = io.StringIO()
    show(Console(file=said, width=60), Comparison([row], [], []), 0.05)
    assert "  difference (95 %): −1.7 (−12.3 to +8.9); p (Holm): 1.000\n" in said.getvalue()
