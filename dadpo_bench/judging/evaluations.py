"""What was found about a judge, kept in the store and cited by boards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dadpo_bench.store import schema
from dadpo_bench.types import JsonObject

if TYPE_CHECKING:  # a board cites evaluations, and needs no torch for it
    from dadpo_bench.judging.comparisons import OpenJudge
    from dadpo_bench.stages.bench import Bench

CANARY_SET = "canaries"
"""Under this name the store keeps how a judge did on them."""


def keep_evaluation(bench: Bench, judge: OpenJudge, set_key: str, name: str, values: JsonObject) -> None:
    """Store what was found, in an earlier finding's place; boards made with the judge cite it."""
    row = schema.JudgeEvaluation(
        judge_key=judge.key, set_key=set_key, name=name, made=datetime.now(UTC), values=dict(values)
    )
    with bench.store.write() as session:
        session.merge(row)


def cited(evaluations: Iterable[schema.JudgeEvaluation]) -> list[str]:
    """What a board says of its judge's evaluations, a line each."""
    return [_citation(row.name, row.values) for row in sorted(evaluations, key=lambda row: (row.name, row.set_key))]


def _citation(name: str, values: Mapping[str, Any]) -> str:
    if name == CANARY_SET:
        canaries = len(values["canaries"]) - 1  # and the control
        return f"judge-eval, canaries: {values['passed']} of {canaries} lose clearly"
    share = values["agreement"]
    if share is None:
        return f"judge-eval, {name}: nothing could be compared"
    kappa = values["cohen_kappa"]
    return (
        f"judge-eval, {name}: agrees with {share['share']:.1f} % of {share['votes']} labels "
        f"({share['low']:.1f} to {share['high']:.1f})" + (f", κ {kappa:.2f}" if kappa is not None else "")
    )
