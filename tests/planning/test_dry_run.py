"""`run --dry-run` counts what the run then does, and says "at most" where that is known on the way alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.stages import Stage
from tests.judges.scripted_server import says, serving

_BAR = re.compile(r"  (?P<label>.+): (?P<number>[\d,]+) (?P<unit>\w+?)s? in [\d.]+ s")


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["run", "sft", "dadpo", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def planned(*arguments: object) -> dict[str, tuple[int, bool]]:
    costs = json.loads(call(*arguments, "--dry-run", "--json"))
    return {cost["stage"]: (cost["items"], cost["at_most"]) for cost in costs}


def counted(*arguments: object) -> Counter[str]:
    """By stage what the run's own bars say: responses, pairs and judgments by their number, trainings one by one."""
    found, stage = Counter[str](), ""
    for line in call(*arguments).splitlines():
        stage = line if line in Stage.__members__.values() else stage
        if bar := _BAR.fullmatch(line):
            sizes = {"step": 1, "direction": 0}
            found[stage] += sizes.get(bar["unit"], int(bar["number"].replace(",", "")))
    return found


def test_a_dry_run_counts_what_the_run_then_does(tiny_recipe: Path, tmp_path: Path) -> None:
    options = ["--recipe", tiny_recipe, "--store", tmp_path / "x.sqlite3"]
    with serving(says("[[C]]")) as server:
        asked = [*options, "--judge", "chat:m", "--set", f"judge_settings.base_url={server.url}"]
        told = planned(*asked)
        assert counted(*asked) == {stage: number for stage, (number, _) in told.items()}
    # Teacher, student and two methods: four prompts, and two for the KL; both orders, and seven canaries on two.
    assert told["responses"] == (4 * (4 + 2), True)
    assert told["judge"] == (2 * (3 * 4 + 7 * 2), False)
    assert [stage for stage, (_, at_most) in told.items() if at_most] == ["signals", "responses"]
    assert planned(*asked, "--orders", "random")["judge"] == (3 * 4 + 7 * 2, False)
    # Of responses that say the same one is rated; the teacher's are rated too.
    rated = [*options, "--judge", "longer"]
    assert planned(*rated)["judge"] == (4 * 4 + 7 * 2, True)
    assert "at most 30 judgments" in call(*rated, "--dry-run")
    assert 0 < counted(*rated)["judge"] < 30
