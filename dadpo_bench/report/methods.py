"""A page for each contestant that was trained: how it was trained, seed by seed, and how it did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from dadpo_bench.history.commands import command_of
from dadpo_bench.history.runs import RunRecord, runs_of
from dadpo_bench.history.trainings import Curve, Training, trainings_of
from dadpo_bench.history.values import flat
from dadpo_bench.leaderboard.columns import SCORES
from dadpo_bench.leaderboard.facts import Cells
from dadpo_bench.leaderboard.sections import Section
from dadpo_bench.report.charts import Chart, Line, curves
from dadpo_bench.report.tables import table
from dadpo_bench.types import content_key

_POINTS = 200
"""Of a curve at most: of more, evenly spaced ones, the last among them."""

_METRICS = {
    "loss": "nats",
    "nll": "nats a token",
    "margin": "nats",
    "accuracy": "share of pairs",
    "chosen_log_prob": "nats",
    "rejected_log_prob": "nats",
    "chosen_reward": "nats",
    "rejected_reward": "nats",
    "divergence": "nats a token",
    "learning_rate": "",
    "grad_norm": "",
    "tokens_per_second": "tokens/s",
    "model_flop_utilisation": "share",
    "resident_bytes": "bytes",
}
"""By unit; first on the page, in this order."""


class Methods:
    """Every contestant that was trained, by the path of its page."""

    def __init__(self, session: Session, sections: Sequence[Section]) -> None:
        self._session, self._sections = session, sections

    @cached_property
    def pages(self) -> dict[str, MethodPage]:
        """By path."""
        found = {}
        for protocol in dict.fromkeys(section.protocol_key for section in self._sections):
            for label, same in groupby(trainings_of(self._session, protocol), key=lambda t: t.contestant):
                found[path_of(protocol, label)] = MethodPage(protocol, label, tuple(same))
        return found

    @cached_property
    def _runs(self) -> list[RunRecord]:
        return runs_of(self._session)

    def context(self, path: str) -> dict[str, Any]:
        """What a page's template shows. Raises `KeyError` where no page is."""
        page = self.pages[path]
        mine = [section for section in self._sections if section.protocol_key == page.protocol]
        runs = [run for run in self._runs if run.protocol_key == page.protocol]
        asked = [run for run in runs if page.trainings[0].name in run.methods] or runs
        return {
            "heading": page.label,
            "boards": [
                {
                    "name": section.recipe,
                    "judge": section.judge,
                    "rows": [
                        {"task": task, "scores": table(SCORES, rows)}
                        for task in section.domains
                        if (
                            rows := [
                                r
                                for r in section.rows
                                if (r["task"], r["contestant"], r["category"]) == (task, page.label, None)
                            ]
                        )
                    ],
                }
                for section in mine
            ],
            "charts": list(_charts(page.trainings)),
            "settings": [(key, str(value)) for key, value in flat(page.trainings[0].settings).items()],
            "trainings": [_trained(training) for training in page.trainings],
            "found": [(f"seed {t.seed}", [(k, str(v)) for k, v in flat(t.record).items()]) for t in page.trainings],
            "runs": [
                {
                    "id": run.id,
                    "command": command_of(run),
                    "stages": [(s.stage, f"{s.seconds:,.1f}", f"{s.peak_bytes / 1e9:.2f}") for s in run.stages],
                }
                for run in asked
            ],
        }


def _rows(section: Section, task: str, label: str) -> list[Cells]:
    place = (task, label, None)
    return [row for row in section.rows if (row["task"], row["contestant"], row["category"]) == place]


class MethodPage(NamedTuple):
    """Whose page it is."""

    protocol: str
    label: str
    trainings: tuple[Training, ...]


def path_of(protocol_key: str, label: str) -> str:
    """Letters and digits of the name, and a hash: names are other people's text."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40]
    return f"method-{slug or 'unnamed'}-{content_key(protocol_key, label)[:6]}.html"


def _trained(training: Training) -> tuple[str, ...]:
    return (
        str(training.seed),
        f"{training.steps:,}" if training.steps is not None else "–",
        f"{training.tokens:,}" if training.tokens is not None else "–",
        f"{training.seconds:,.0f}",
        training.key[:8],
    )


def _charts(trainings: Sequence[Training]) -> list[Chart]:
    every = dict.fromkeys(name for training in trainings for name in training.curves)
    names = [name for name in every if not name.startswith("validation_")]
    names.sort(key=lambda name: list(_METRICS).index(name) if name in _METRICS else len(_METRICS))
    made = []
    for name in names:
        lines = [
            _line(place, f"seed {training.seed}", training.curves[name], at_times=False)
            for place, training in enumerate(trainings)
            if name in training.curves
        ] + [
            _line(place, f"seed {training.seed}, validation", training.curves[f"validation_{name}"], at_times=True)
            for place, training in enumerate(trainings)
            if f"validation_{name}" in training.curves
        ]
        made.append(curves(name.replace("_", " "), _METRICS.get(name, ""), lines))
    return made


def _line(place: int, name: str, curve: Curve, *, at_times: bool) -> Line:
    points = list(zip(curve.steps, curve.values, strict=True))
    stride = -(-len(points) // _POINTS)
    kept = points[::-stride][::-1] if points else []
    return Line(name, [step for step, _ in kept], [value for _, value in kept], place, at_times)
