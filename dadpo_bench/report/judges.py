"""How far the judges can be trusted: flips, leanings, canaries, agreement, what stayed unscored, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench.judging.evaluations import cited
from dadpo_bench.judging.stored_agreement import Agreement, stored_agreement
from dadpo_bench.leaderboard import number
from dadpo_bench.leaderboard.columns import CANARY
from dadpo_bench.leaderboard.sections import Section
from dadpo_bench.panels import Panel
from dadpo_bench.report.tables import table
from dadpo_bench.sample_size import usd_of
from dadpo_bench.scoring import agreement, flip_rate, prompt_outcomes
from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.store import schema


def context(session: Session, sections: Sequence[Section]) -> dict[str, Any]:
    """What its template shows."""
    return {
        "boards": [_board(session, section) for section in sections],
        "agreement": [_agreed(found) for found in stored_agreement(session)],
    }


def _board(session: Session, section: Section) -> dict[str, Any]:
    judge = session.get_one(schema.Judge, section.judge_key)
    evaluations = select(schema.JudgeEvaluation).where(schema.JudgeEvaluation.judge_key == judge.key)
    return {
        "name": section.recipe,
        "judge": section.judge,
        "kind": judge.kind,
        "proxy": section.proxy,
        "leanings": [_leanings(panel) for panel in section.panels if not panel.rated_alone],
        "canaries": table(CANARY, [row for row in section.canary_rows if row["category"] is None]),
        "evaluations": cited(session.scalars(evaluations)),
        "unscored": _unscored(session, judge),
        "cost": _cost(session, judge),
    }


class _Judged(NamedTuple):
    """All contestants' comparisons but canaries', in one row."""

    orders: Floats
    """(comparisons, orders)"""
    ours: Floats
    """Characters."""
    theirs: Floats
    prompts: list[str]


def _judged(panel: Panel) -> _Judged | None:
    places = [at for at, e in enumerate(panel.entrants) if e.contends]
    if not places or panel.rated_alone:
        return None
    width = max(panel.all_orders[at].shape[-1] for at in places)
    lengths = [panel.lengths(panel.entrants[at]) for at in places]
    standard = panel.lengths(panel.standard)[0] if panel.standard else np.full(len(panel.prompts), np.nan)
    return _Judged(
        np.concatenate([_wide(panel.all_orders[at], width).reshape(-1, width) for at in places]),
        np.concatenate([given.ravel() for given in lengths]),
        np.concatenate([np.broadcast_to(standard, given.shape).ravel() for given in lengths]),
        [prompt for given in lengths for _ in given for prompt in panel.prompts],
    )


def alike_longer(panel: Panel) -> str | None:
    """How often the judge decides as `longer` would, with its interval; None where nothing is compared."""
    judged = _judged(panel)
    if judged is None:
        return None
    longer = 0.5 + 0.5 * np.sign(judged.ours - judged.theirs)
    alike = agreement.agreement(prompt_outcomes(judged.orders), longer, prompts=judged.prompts, ties=False)
    return f"{number(alike.share)} ({number(alike.low)} to {number(alike.high)})" if alike else None


def _leanings(panel: Panel) -> tuple[str, ...]:
    """(task, flips, for the first shown, agreement with `longer`)."""
    judged = _judged(panel)
    if judged is None:
        return (panel.task.name, *["–"] * 3)
    return (
        panel.task.name,
        number(flip_rate(judged.orders)),
        number(agreement.first_shown_share(judged.orders)),
        alike_longer(panel) or "–",
    )


def _wide(orders: Any, width: int) -> Any:
    """Of contestants asked in one order only, the other is unscored."""
    missing = width - orders.shape[-1]
    return np.concatenate([orders, np.full((*orders.shape[:-1], missing), np.nan)], -1) if missing else orders


def _table_of(judge: schema.Judge) -> Any:
    return schema.Rating if judge.kind == "pointwise" else schema.Verdict


def _unscored(session: Session, judge: schema.Judge) -> list[tuple[str, str]]:
    row = _table_of(judge)
    count = func.count()
    query = select(row.reason, count).where(row.judge_key == judge.key, row.reason != "").group_by(row.reason)
    return [(reason, f"{n:,}") for reason, n in session.execute(query.order_by(count.desc(), row.reason))]


def _cost(session: Session, judge: schema.Judge) -> list[tuple[str, str]]:
    row = _table_of(judge)
    asked, tokens, answered, seconds = session.execute(
        select(func.count(), func.sum(row.tokens), func.sum(row.answer_tokens), func.sum(row.seconds)).where(
            row.judge_key == judge.key
        )
    ).one()
    found = [("judgments", f"{asked or 0:,}")]
    if tokens:
        found += [("tokens, read and written", f"{tokens:,}")]
        found += [("of these written", f"{answered:,}")] if answered else []
        usd = usd_of(judge.identity, tokens - answered, answered)
        found += [("USD, at the prices that the judge knows", f"{usd:,.2f}")] if usd is not None else []
    if seconds:
        found.append(("seconds of calls, added up", f"{seconds:,.0f}"))
    return found


def _agreed(found: Agreement) -> tuple[str, ...]:
    shares = (found.agreement, found.agreement_without_ties)
    return (
        f"{found.board}: {found.first}, {found.second}",
        *(f"{number(s.share)} ({number(s.low)} to {number(s.high)})" if s else "–" for s in shares),
        number(found.cohen_kappa, 2),
        number(found.cohen_kappa_without_ties, 2),
        f"{found.comparisons:,}",
    )
