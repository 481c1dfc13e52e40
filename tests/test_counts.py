"""One of something is not told as several."""

import re
from pathlib import Path

from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.counts import counted


def test_numbers_are_told_with_what_they_count() -> None:
    assert [counted(n, "trainings") for n in (0, 1, 2, 1024)] == [
        "0 trainings",
        "1 training",
        "2 trainings",
        "1,024 trainings",
    ]


def test_a_dry_run_tells_of_one_training(tiny_recipe: Path) -> None:
    told = CliRunner().invoke(app, ["run", "dadpo", "--recipe", str(tiny_recipe), "--dry-run"]).stdout
    assert "1 training " in told
    assert not re.search(r"\b(?<!,)1 \w+s\b", told)
