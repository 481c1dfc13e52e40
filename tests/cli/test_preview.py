"""`run --dry-run` of a judge that costs money: what it would be asked, and what it would not, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dadpo_bench.cli import app


def preview(recipe: Path, *options: str) -> str:
    asked = ["run", "dadpo", "--recipe", str(recipe), "--judge", "chat:judge", *options, "--dry-run"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def held_out(tiny_recipe: Path) -> Path:
    """Four prompts; the third has two turns."""
    return tiny_recipe.parent / "held-out.jsonl"


def test_prompts_that_would_stay_unscored_are_counted_by_reason(tiny_recipe: Path, held_out: Path) -> None:
    shown = preview(tiny_recipe, "--template", "checklist")
    assert "chat:judge: 4 of 4 prompts stay unscored: no checklist" in shown
    assert "question 1" not in shown
    rows = [json.loads(line) for line in held_out.read_text(encoding="utf-8").split("\n") if line]
    rows[1]["checklist"] = ["names one colour"]
    held_out.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shown = preview(tiny_recipe, "--template", "checklist")
    assert "chat:judge: 3 of 4 prompts stay unscored: no checklist" in shown
    assert "1. names one colour" in shown  # the one that would be asked about is shown, wherever it stands


def test_where_every_prompt_is_asked_about_nothing_is_said(tiny_recipe: Path) -> None:
    assert "stay unscored" not in preview(tiny_recipe)
