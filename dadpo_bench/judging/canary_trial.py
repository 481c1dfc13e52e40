"""Canaries before a judge: what a usable one must rank low, and the teacher, whom it must not."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import select

from dadpo_bench import scoring
from dadpo_bench.errors import UserError
from dadpo_bench.judging.asked import accord_of_members, keep_responses, longer, orders_of_matches, unscored_in
from dadpo_bench.judging.canaries import CANARIES
from dadpo_bench.judging.comparisons import Match, OpenJudge, ask, tell_unscored
from dadpo_bench.judging.evaluations import CANARY_SET, keep_evaluation
from dadpo_bench.panels import DRAWS, SEED
from dadpo_bench.recipe import FIRST
from dadpo_bench.scoring import agreement
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import Store, open_store, schema
from dadpo_bench.store.rows import to_prompt, to_response
from dadpo_bench.types import content_key

CONTROL = "teacher"
"""Stands among the canaries: a usable judge ranks it high."""


class Answered(NamedTuple):
    """Responses to the same prompts, by who gave them, dSFT among them."""

    prompts: list[str]
    """Keys."""
    by_name: dict[str, dict[str, Stored]]
    """Contestant → prompt's key → response."""
    rows: list[dict[str, Any]]
    """The responses as their store holds them."""


def has_canaries(where: str) -> bool:
    """Whether there is a store that holds a judged run."""
    if "://" not in where and not Path(where).is_file():
        return False
    store = open_store(where, create=False)
    with closing(store), store.read() as session:
        return (
            session.scalars(select(schema.Contestant.key).where(schema.Contestant.kind == "canary")).first() is not None
        )


def canary_answers(source: Store) -> Answered:
    """What canaries, dSFT and the teacher answered in a store, on its first task.

    Raises `UserError` where the store holds no judged run.
    """
    with source.read() as session:
        query = (
            select(schema.Contestant)
            .where(schema.Contestant.kind == "canary")
            .order_by(schema.Contestant.protocol_key, schema.Contestant.seed)
        )
        chosen = session.scalars(query).first()
        if chosen is None:
            raise UserError(f"{source.name} holds no canaries: run a method to its end there, or name --responses")
        contestants = session.scalars(
            select(schema.Contestant).where(schema.Contestant.protocol_key == chosen.protocol_key)
        ).all()
        keys = {
            c.key: c.name
            for c in contestants
            if (c.kind == "canary" and c.seed == chosen.seed)
            or (c.kind == "teacher")
            or (c.name == FIRST and c.seed == chosen.seed)
        }
        answers = session.execute(
            select(schema.Answer.contestant_key, schema.Response, schema.Prompt, schema.TaskPrompt.category)
            .join(schema.Response, schema.Response.key == schema.Answer.response_key)
            .join(schema.Prompt, schema.Prompt.key == schema.Answer.prompt_key)
            # Templates may have a wording for each category, and a run's verdicts are kept under the same key.
            .join(
                schema.TaskPrompt,
                (schema.TaskPrompt.task_key == schema.Answer.task_key)
                & (schema.TaskPrompt.prompt_key == schema.Answer.prompt_key),
            )
            .where(schema.Answer.contestant_key.in_(keys))
        ).all()
        by_name: dict[str, dict[str, Stored]] = {name: {} for name in keys.values()}
        rows: dict[str, dict[str, Any]] = {}
        for contestant, response, prompt, category in answers:
            stored = Stored(response.key, to_response(response, to_prompt(prompt, category=category)))
            by_name[keys[contestant]][prompt.key] = stored
            rows[response.key] = {c.name: getattr(response, c.name) for c in schema.Response.__table__.columns}
    prompts = sorted(by_name[chosen.name])
    answered = {name: {p: given[p] for p in prompts} for name, given in by_name.items()}
    used = {stored.key for given in answered.values() for stored in given.values()}
    return Answered(prompts, answered, [row for key, row in rows.items() if key in used])


class Canary(NamedTuple):
    """How one of them did against dSFT, per cent."""

    name: str
    summary: scoring.Summary
    passed: bool
    """A canary loses clearly; the teacher, the control, wins at all."""


class CanaryReport(NamedTuple):
    """What a usable judge must pass."""

    canaries: list[Canary]
    usable: bool
    """Whether every canary loses clearly."""
    flip_rate: float | None
    first_shown: float | None
    like_longer: float | None
    """Per cent of decided comparisons in which it agrees with `longer`, the null judge."""
    unscored: int
    half_scored: int
    """Comparisons with one of two orders scored."""
    set_key: str
    """Of the compared responses, by content."""
    accord: agreement.Accord | None
    """Of the members of a panel."""


def canary_matches(answered: Answered) -> dict[str, list[Match]]:
    """What is compared with dSFT, by its name."""
    names = [*(name for name in CANARIES if name in answered.by_name), CONTROL]
    baseline = answered.by_name[FIRST]
    return {name: [(answered.by_name[name][p], baseline[p]) for p in answered.prompts] for name in names}


def try_canaries(bench: Bench, judge: OpenJudge, answered: Answered) -> CanaryReport:
    """Have canaries and teacher compared with dSFT, and look at what came out."""
    matches = canary_matches(answered)
    everything = [match for one in matches.values() for match in one]
    keep_responses(bench, [stored.response.prompt for match in everything for stored in match], answered.rows)
    tell_unscored(bench, ask(bench, judge, everything, f"{judge.name}: canaries"))
    orders = {name: orders_of_matches(bench, judge, one) for name, one in matches.items()}
    counts = scoring.bootstrap_counts(len(answered.prompts), DRAWS, SEED)
    canaries = []
    for name, given in orders.items():
        summary = scoring.summarise(given[None], counts, seed=SEED)
        won = summary.win_rate is not None and summary.win_rate > 50
        canaries.append(Canary(name, summary, won if name == CONTROL else scoring.loses_clearly(summary.ci_high)))
    together = np.concatenate(list(orders.values()))
    null_judge = longer([(a.response, b.response) for a, b in everything])
    share = agreement.agreement(scoring.prompt_outcomes(together), null_judge, ties=False)
    return CanaryReport(
        canaries,
        all(c.passed for c in canaries if c.name != CONTROL),
        scoring.flip_rate(together),
        agreement.first_shown_share(together),
        share.share if share else None,
        *unscored_in(together),
        content_key(CANARY_SET, sorted((ours.key, theirs.key) for ours, theirs in everything)),
        accord_of_members(bench, judge, everything),
    )


def keep_canaries(bench: Bench, judge: OpenJudge, report: CanaryReport) -> None:
    """Store how the judge did; see `keep_evaluation`."""
    mine = [c for c in report.canaries if c.name != CONTROL]
    values = {**canary_data(report), "passed": sum(c.passed for c in mine)}
    keep_evaluation(bench, judge, report.set_key, CANARY_SET, values)


def canary_data(report: CanaryReport) -> dict[str, Any]:
    """For machines and the store."""
    rows = [{"contestant": c.name, "as_it_must": c.passed, **asdict(c.summary)} for c in report.canaries]
    found = {**report._asdict(), "canaries": rows}
    accord = found.pop("accord")
    return found | ({"members_agree": accord.as_data()} if accord else {})
