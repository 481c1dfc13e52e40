"""Published AlpacaEval 2 rows, reproduced from their annotations."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dadpo_bench import scoring

ORACLE = Path(__file__).parents[3] / "shared" / "oracle" / "alpaca_eval"
pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the published figures are not beside the project")


def published() -> list[dict[str, str]]:
    path = ORACLE / "leaderboard_rows.csv"
    return list(csv.DictReader(path.open())) if path.is_file() else []


@pytest.mark.parametrize("row", published(), ids=lambda row: next(iter(row.values())))
def test_a_published_row_is_reproduced(row: dict[str, str]) -> None:
    name = row.get("") or row.get("name") or row.get("contestant") or next(iter(row.values()))
    annotations = json.loads((ORACLE / "annotations" / f"{name}.json").read_text())
    # 1 = baseline preferred, 2 = contestant preferred.
    preferences = [a["preference"] for a in annotations]
    outcomes = np.array([np.nan if p is None else p - 1 for p in preferences], dtype=float)
    counts = scoring.bootstrap_counts(len(outcomes), 100, 0)
    summary = scoring.summarise(outcomes[None, :, None], counts, seed=0)
    assert summary.win_rate == pytest.approx(float(row["win_rate"]), abs=1e-9)
    assert summary.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-9)
    for share, published_name in (("win_share", "n_wins"), ("loss_share", "n_wins_base"), ("tie_share", "n_draws")):
        assert getattr(summary, share) * summary.prompts / 100 == pytest.approx(float(row[published_name]))
