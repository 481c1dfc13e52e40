"""What judging the judge shares: responses noted, outcomes read, and what the null judge says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dadpo_bench.judging.comparisons import Match, OpenJudge
from dadpo_bench.judging.judgments import Judgments, places, told_apart
from dadpo_bench.scoring import agreement
from dadpo_bench.scoring.outcomes import Floats, prompt_outcomes
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import save_prompts
from dadpo_bench.types import Prompt, Response


def keep_responses(bench: Bench, prompts: Sequence[Prompt], rows: Sequence[Mapping[str, Any]]) -> None:
    """Note responses and their prompts; those that are there stay as they are."""
    with bench.store.write() as session:
        save_prompts(session, {p.key: p for p in prompts}.values())
        insert_missing(session, schema.Response, rows)


def orders_of_matches(bench: Bench, judge: OpenJudge, matches: Sequence[Match]) -> Floats:
    """(matches, orders) outcomes."""
    with bench.store.read() as session:
        row = session.get_one(schema.Judge, judge.key)
        place = places(stored.key for match in matches for stored in match)
        at = np.array([[place[stored.key] for stored in match] for match in matches], dtype=np.int64).reshape(-1, 2)
        return Judgments(session, row, place).outcomes(at[:, 0], at[:, 1])


def accord_of_members(bench: Bench, judge: OpenJudge, matches: Sequence[Match]) -> agreement.Accord | None:
    """How far the members of a panel agree on these; None for a judge that decides alone."""
    if not judge.members:
        return None
    once = list({(ours.key, theirs.key): (ours, theirs) for ours, theirs in matches}.values())
    members = sorted(judge.members, key=lambda member: (member.name, member.key))
    said = [prompt_outcomes(orders_of_matches(bench, member, once)) for member in members]
    return agreement.accord(told_apart(members), np.vstack(said))


def unscored_in(orders: Floats) -> tuple[int, int]:
    """(pairs, orders) → pairs without any scored order, and those with one of two."""
    missing = np.isnan(orders).sum(1)
    return int((missing == orders.shape[1]).sum()), int(((missing > 0) & (missing < orders.shape[1])).sum())


def longer(pairs: Sequence[tuple[Response, Response]]) -> Floats:
    """What `longer` says of them."""
    said: Floats = 0.5 + 0.5 * np.sign(np.array([length(a) - length(b) for a, b in pairs]))
    return said


def length(response: Response) -> float:
    return float(len(response.text))
