"""From a panel to the rows of a board. Percent, nats and characters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.panels import BASELINES, DRAWS, SEED, Entrant, Floats, Panel, panels
from dadpo_bench.progress import running
from dadpo_bench.recipe import FIRST
from dadpo_bench.store import Store, schema

REFITS = 200
"""Bootstrap draws that refit length control: their deviation is the standard error."""

FEW = 20
"""Prompts under which a category has no interval."""


@dataclass(frozen=True)
class Texts:
    """What a contestant's responses look like, whoever judges them."""

    mean_length: float
    """Characters of a response."""
    cut_share: float | None
    """Per cent of responses cut by the token limit; null for canaries, whom nothing cuts."""
    repetition: float | None
    """Per cent of a response's word 4-grams that it had said before."""


@dataclass(frozen=True)
class Divergence:
    """Nats a token between a contestant and the teacher, mean over seeds; null where not measured."""

    kl_from_teacher: float | None = None
    """KL(teacher‖contestant) on the teacher's samples."""
    kl_to_teacher: float | None = None
    """KL(contestant‖teacher) on the contestant's samples."""


@dataclass(frozen=True)
class Single:
    """What a judge of single answers gave, in its own unit (1 to 10 for MT-Bench); null for proxies."""

    single_score: float | None = None
    """Mean over all turns that have a score, as FastChat's; of prompts that are scored as a whole, over those."""
    single_low: float | None = None
    single_high: float | None = None
    single_prompts: int = 0
    """Of which a turn has a score: where another has none, the prompt is unscored wherever it is compared."""
    single_by_turn: tuple[float | None, ...] = ()
    """Mean over the prompts of which the turn has a score."""


@dataclass(frozen=True)
class Controlled:
    """What the win rate would be of responses as long as the baseline's; null for canaries and single answers."""

    length_controlled_win_rate: float | None = None
    length_controlled_se: float | None = None
    """By refits in the bootstrap over prompts and seeds; null where coefficients were given."""
    length_controlled_low: float | None = None
    length_controlled_high: float | None = None
    length_control: str = ""
    """`fitted`, `fitted without difficulty` on boards of few contestants, or `given coefficients`; why not."""


@dataclass(frozen=True)
class Rated:
    """Bradley–Terry over everybody on the task, the baseline at 1000, 400 points ten wins to one."""

    rating: float | None = None
    """Null where it is unbounded or undetermined: see `rating_standing`."""
    rating_low: float | None = None
    rating_high: float | None = None
    """Null for an open end."""
    rating_standing: str = ""
    """`rated`, `above` (won all), `below` (lost all) or `undetermined`."""


@dataclass(frozen=True)
class Corrected:
    """The win rate that labels would give, by prediction-powered inference; null where no labels are given."""

    corrected_win_rate: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    corrected_labels: int | None = None
    """Prompts with a label; of too few no rate is made."""


@dataclass(frozen=True)
class Styled:
    """As `Rated`, at equal length and markdown, as Arena-Hard controls style; null where it is not asked for."""

    style_rating: float | None = None
    style_rating_low: float | None = None
    style_rating_high: float | None = None
    style_rating_standing: str = ""
    style_counter: str = ""
    """Who counted the tokens."""


class Lens(Protocol):
    """What else is known of a panel's contestants, by whoever asks for the board."""

    def controlled(self, panel: Panel, entrant: Entrant) -> Controlled | None:
        """A length-controlled win rate from elsewhere; None to have it fitted."""
        ...

    def corrected(self, panel: Panel, entrant: Entrant, outcomes: Floats) -> Corrected:
        """(seeds, prompts) outcomes of the judge → the corrected win rate, where there are labels."""
        ...

    def styled(self, panel: Panel) -> Mapping[str, Styled]:
        """By label the rating at equal style; empty where nobody asked for it."""
        ...


@dataclass(frozen=True)
class Row:
    """A row of a board."""

    contestant: str
    task: str
    judge: str
    baseline: str
    """Empty where responses are only rated."""
    category: str | None
    """Null for the whole task."""
    summary: scoring.Summary
    controlled: Controlled
    rated: Rated
    styled: Styled
    corrected: Corrected
    single: Single
    texts: Texts
    divergence: Divergence

    def cells(self) -> dict[str, Any]:
        """The row as it is stored and printed: every column by its name."""
        who = {name: getattr(self, name) for name in ("contestant", "task", "judge", "baseline", "category")}
        parts: tuple[Any, ...] = (self.summary, self.controlled, self.rated, self.styled, self.corrected, self.single)
        parts += (self.texts, self.divergence)
        return {**who, **{name: value for part in parts for name, value in asdict(part).items()}}


def rows_of(panel: Panel, lens: Lens | None = None, *, fit_lengths: bool = True) -> list[Row]:
    """Every entrant's row; but for the baseline's, rows without any judged prompt are left out.

    A category of fewer than `FEW` prompts has no interval, and nothing that is fitted. `fit_lengths=False` leaves out
    length control, which takes half a minute where there are a million verdicts.
    """
    orders, means = panel.all_orders, panel.all_means
    few = panel.category is not None and len(panel.prompts) < FEW
    controlled = {} if few or not fit_lengths else _controlled(panel, orders)
    rated = {} if few else _rated(panel, orders, means)
    styled = lens.styled(panel) if lens and not few else {}
    rows = []
    for place, entrant in enumerate(panel.entrants):
        summary = scoring.summary_of(orders[place], means[place])
        if panel.baseline is None and panel.judgments.pointwise:  # nobody is met: unscored is what has no rating
            summary = replace(summary, unscored=int(np.isnan(panel.ratings(entrant)).sum()))
        outcomes, asked = scoring.prompt_outcomes(orders[place]), lens if entrant.contends else None
        given = asked.controlled(panel, entrant) if asked else None
        rows.append(
            Row(
                contestant=entrant.label,
                task=panel.task.name,
                judge=panel.judge.name,
                baseline=_baseline(panel, entrant),
                category=panel.category,
                summary=replace(summary, ci_low=None, ci_high=None) if few else summary,
                controlled=given or controlled.get(entrant.label, Controlled()),
                rated=rated.get(entrant.label, Rated()),
                styled=styled.get(entrant.label, Styled()),
                corrected=asked.corrected(panel, entrant, outcomes) if asked else Corrected(),
                single=_single(panel, entrant),
                texts=_texts(panel, entrant),
                divergence=_divergence(panel, entrant),
            )
        )
    return [
        row
        for entrant, row in zip(panel.entrants, rows, strict=True)
        if row.summary.prompts or row.single.single_score is not None or entrant.kind in BASELINES
    ]


def _controlled(panel: Panel, orders: Sequence[Floats]) -> dict[str, Controlled]:
    """By label: the fit over everybody who meets the baseline."""
    met = [place for place, entrant in enumerate(panel.entrants) if entrant.contends]
    if not met or panel.standard is None:
        return {}
    outcomes = [scoring.prompt_outcomes(orders[place]) for place in met]
    theirs = scoring.nanmean(panel.lengths(panel.standard), 0)
    gaps = [theirs - panel.lengths(panel.entrants[place]) for place in met]
    counts = scoring.bootstrap_counts(len(panel.prompts), REFITS, SEED)
    with running().patient(f"length control, {panel.task.name}", "fits") as reach:
        fitted = scoring.length_controlled(outcomes, gaps, counts, seed=SEED, told=reach)
    return {
        panel.entrants[place].label: Controlled(
            found.win_rate,
            found.standard_error,
            found.ci_low,
            found.ci_high,
            "" if found.win_rate is None else "fitted" if found.difficulty else "fitted without difficulty",
        )
        for place, found in zip(met, fitted, strict=True)
    }


def _rated(panel: Panel, orders: Sequence[Floats], means: Sequence[Floats]) -> dict[str, Rated]:
    """By label: in a star, where everybody meets the baseline alone, a rating is the logit of the mean outcome."""
    star = [place for place, entrant in enumerate(panel.entrants) if entrant.contends]
    if not star or panel.standard is None:
        return {}
    by_prompt = [scoring.nanmean(scoring.prompt_outcomes(orders[place]), 0) for place in star]
    found = scoring.star_ratings(
        np.array([float(scoring.nanmean(given, 0)) for given in by_prompt]),
        np.stack([means[place] for place in star], axis=1),
        np.array([float((~np.isnan(given)).sum()) for given in by_prompt]),
    )
    labels = [panel.standard.label, *(panel.entrants[place].label for place in star)]
    return {label: Rated(*rating.as_data().values()) for label, rating in zip(labels, found, strict=True)}


def _baseline(panel: Panel, entrant: Entrant) -> str:
    if entrant.kind == "canary":
        return FIRST
    return panel.baseline.name if panel.baseline else ""


def _single(panel: Panel, entrant: Entrant) -> Single:
    if not panel.judgments.pointwise or panel.judge.proxy:
        return Single()
    turns, whole = panel.ratings_by_turn(entrant), panel.ratings(entrant)
    apart = scoring.nanmean(turns, 1)  # (turns, prompts), seeds averaged first
    unsplit = np.where(np.isnan(turns).all(0), whole, np.nan)
    scored = np.vstack([apart, scoring.nanmean(unsplit, 0)])
    if np.isnan(scored).all():
        return Single()
    means = (float(mean) for mean in scoring.nanmean(apart, 1))
    rated = int((~np.isnan(scored).all(0)).sum())
    counts = scoring.bootstrap_counts(len(panel.prompts), DRAWS, SEED)
    many = panel.category is None or len(panel.prompts) >= FEW
    cells = np.concatenate([turns, unsplit[None]])
    low, high = (scoring.cells_interval(cells, counts, SEED) if many else None) or (None, None)
    by_turn = tuple(None if math.isnan(mean) else mean for mean in means)
    return Single(float(np.nanmean(scored)), low, high, rated, by_turn)


def _texts(panel: Panel, entrant: Entrant) -> Texts:
    total, responses, cut = panel.looks(entrant)
    return Texts(
        mean_length=total.characters / responses,
        cut_share=None if entrant.kind == "canary" else 100 * cut / responses,
        repetition=100 * total.repeated / total.grams if total.grams else None,
    )


def _divergence(panel: Panel, entrant: Entrant) -> Divergence:
    if panel.category is not None:  # it is measured on the task's samples together
        return Divergence()
    rows = [row for c in entrant.contestants if (row := panel.divergences.get(c.key)) is not None]
    if len(rows) < len(entrant.contestants):
        return Divergence()
    return Divergence(
        kl_from_teacher=float(np.mean([row.from_teacher for row in rows])),
        kl_to_teacher=float(np.mean([row.to_teacher for row in rows])),
    )


def compute_rows(session: Session, protocol_key: str, judge_key: str) -> list[tuple[schema.Task, Row]]:
    """Every row of a board section, as `rows_of` gives them."""
    return [(panel.task, row) for panel in panels(session, protocol_key, judge_key) for row in rows_of(panel)]


def refresh_scores(store: Store) -> bool:
    """Compute every scored section of a store anew; whether any row changed."""
    query = select(schema.Score.protocol_key, schema.Score.judge_key).distinct()
    with store.read() as session:
        scored = [tuple(found) for found in session.execute(query)]
    return sum(save_scores(store, protocol_key, judge_key) for protocol_key, judge_key in scored) > 0


def save_scores(store: Store, protocol_key: str, judge_key: str) -> bool:
    """Compute a section's rows anew and keep them, replacing the earlier ones; whether any changed."""
    section = {"protocol_key": protocol_key, "judge_key": judge_key}
    with store.read() as session:  # others may write meanwhile
        made = {
            (task.key, row.baseline, row.contestant): json.loads(json.dumps(row.cells()))
            for task, row in compute_rows(session, protocol_key, judge_key)
        }
    with store.write() as session:
        stored = session.scalars(select(schema.Score).filter_by(**section))
        kept = {(score.task_key, score.baseline, score.contestant): score for score in stored}
        for place, old in kept.items():
            if made.get(place) != old.values:
                session.delete(old)
        session.flush()
        changed = {place: values for place, values in made.items() if place not in kept or values != kept[place].values}
        for (task_key, baseline, contestant), values in changed.items():
            who = {"task_key": task_key, "baseline": baseline, "contestant": contestant}
            session.add(schema.Score(**section, **who, values=values))
        return bool(changed) or bool(kept.keys() - made.keys())
