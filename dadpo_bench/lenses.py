"""What a person brings to a board: somebody's length-control coefficients, and labels that correct the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import registry, scoring
from dadpo_bench.errors import UserError
from dadpo_bench.judging.judgments import Judgments
from dadpo_bench.judging.labelled import read_pairs
from dadpo_bench.panels import Entrant, Floats, Panel
from dadpo_bench.scores import Controlled, Corrected
from dadpo_bench.store import schema

_Pair = tuple[tuple[str, ...], str, str]
"""The user's turns, the contestant's text and the baseline's."""


@dataclass(frozen=True)
class Lenses:
    """A `scores.Lens` of all that was brought."""

    session: Session
    coefficients: Mapping[str, scoring.Coefficients] = field(default_factory=dict)
    difficulty: Mapping[str, float] = field(default_factory=dict)
    judge: schema.Judge | None = None
    """A stronger judge, whose verdicts are labels."""
    labels: Mapping[_Pair, float] = field(default_factory=dict)
    """1 the contestant's response is better, 0 the baseline's."""

    @classmethod
    def made(
        cls, session: Session, coefficients: Path | None, difficulty: Path | None, labels: str | None
    ) -> Self | None:
        """None where nothing was brought. Raises `UserError` for files that cannot be read and an unknown judge."""
        if coefficients is None and difficulty is None and labels is None:
            return None
        judge, pairs = _labels(session, labels) if labels else (None, {})
        return cls(
            session,
            scoring.read_coefficients(coefficients) if coefficients else {},
            scoring.read_difficulty(difficulty) if difficulty else {},
            judge,
            pairs,
        )

    def controlled(self, panel: Panel, entrant: Entrant) -> Controlled | None:
        """By the coefficients of the contestant's name; there is no error where only coefficients are given."""
        if entrant.label not in self.coefficients:
            return None
        asked = scoring.nanmean(scoring.prompt_outcomes(panel.orders(entrant)), 0)
        scored = [prompt for prompt, outcome in zip(panel.prompts, asked, strict=True) if not np.isnan(outcome)]
        instructions = [turns[0] for turns, _ in self._texts(scored)]
        rate = scoring.published_win_rate(self.coefficients[entrant.label], self.difficulty, instructions)
        return Controlled(length_controlled_win_rate=rate, length_control="given coefficients")

    def corrected(self, panel: Panel, entrant: Entrant, outcomes: Floats) -> Corrected:
        """By the labels of this contestant's comparisons; nothing where there is none, or too few."""
        labels = self._labels_of(panel, entrant)
        usable = int((~np.isnan(labels) & ~np.isnan(outcomes)).sum())
        if usable < scoring.MINIMUM_LABELS:
            return Corrected(corrected_labels=usable) if usable else Corrected()
        found = scoring.corrected_win_rate(outcomes, labels)
        return Corrected(found.win_rate, found.low, found.high, found.labels)

    def _labels_of(self, panel: Panel, entrant: Entrant) -> Floats:
        """(prompts,) in [0, 1], NaN where there is no label; the mean over seeds."""
        ours, theirs = panel.pairs(entrant)
        if self.judge is not None:
            said = Judgments(self.session, self.judge, panel.judgments.places)
            return scoring.nanmean(scoring.prompt_outcomes(said.outcomes(ours, theirs)), 0)
        if not self.labels:
            return np.full(len(panel.prompts), np.nan)
        keys = {place: key for key, place in panel.judgments.places.items()}
        wanted = {keys[int(place)] for place in np.unique(np.concatenate([ours, theirs])) if place >= 0}
        texts = self._responses(wanted)
        turns = {prompt: turns for prompt, (turns, _) in zip(panel.prompts, self._texts(panel.prompts), strict=True)}
        found = np.full(ours.shape, np.nan)
        for (seed, place), mine in np.ndenumerate(ours):
            other = theirs[seed, place]
            if mine >= 0 and other >= 0:
                pair = (turns[panel.prompts[place]], texts[keys[int(mine)]], texts[keys[int(other)]])
                found[seed, place] = self.labels.get(pair, np.nan)
        return scoring.nanmean(found, 0)

    def _texts(self, prompts: list[str] | tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
        """(turns, system) of each."""
        rows = {key: (tuple(turns), system) for key, turns, system in self.session.execute(_PROMPTS)}
        return [rows[prompt] for prompt in prompts]

    def _responses(self, keys: set[str]) -> dict[str, str]:
        query = select(schema.Response.key, schema.Response.replies)
        rows = self.session.execute(query).yield_per(1_000)
        return {key: "\n\n".join(reply["text"] for reply in replies) for key, replies in rows if key in keys}


_PROMPTS = select(schema.Prompt.key, schema.Prompt.turns, schema.Prompt.system)


def _labels(session: Session, labels: str) -> tuple[schema.Judge | None, dict[_Pair, float]]:
    judges = {judge.name: judge for judge in session.scalars(select(schema.Judge).order_by(schema.Judge.key))}
    if labels in judges:
        return judges[labels], {}
    if not Path(labels).is_file():
        raise UserError(f"--labels: {registry.unknown('judge or file', labels, sorted(judges))}")
    found: dict[_Pair, float] = {}
    for pair in read_pairs(Path(labels)).pairs:
        mean = float(np.mean(pair.labels))
        first, second = pair.texts
        found[pair.first.prompt.turns, first, second] = mean
        found[pair.first.prompt.turns, second, first] = 1 - mean
    return None, found
