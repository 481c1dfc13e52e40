"""What a person brings to a board: somebody's length-control coefficients, and labels that correct the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench import registry, scoring
from dadpo_bench.errors import UserError
from dadpo_bench.judging.judgments import Judgments, Places
from dadpo_bench.judging.labelled import read_pairs
from dadpo_bench.panels import BASELINES, SEED, Entrant, Floats, Panel
from dadpo_bench.scores import Controlled, Corrected, Styled
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
    counter: scoring.TokenCounter | None = None
    """Counts tokens for ratings at equal style; None where those are not asked for."""

    @classmethod
    def made(
        cls,
        session: Session,
        coefficients: Path | None = None,
        difficulty: Path | None = None,
        labels: str | None = None,
        *,
        style: bool = False,
    ) -> Self | None:
        """None where nothing was brought.

        Raises `UserError` for files that cannot be read, an unknown judge, and where no token counter is at hand.
        """
        if coefficients is None and difficulty is None and labels is None and not style:
            return None
        judge, pairs = _labels(session, labels) if labels else (None, {})
        return cls(
            session,
            scoring.read_coefficients(coefficients) if coefficients else {},
            scoring.read_difficulty(difficulty) if difficulty else {},
            judge,
            pairs,
            _counter() if style else None,
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

    def styled(self, panel: Panel) -> dict[str, Styled]:
        """Everybody against the baseline, refitted with what their responses differ in beside content."""
        star = [e for e in panel.entrants if e.kind not in (*BASELINES, "canary")]
        if self.counter is None or panel.baseline is None or not star:
            return {}
        pairs = [panel.pairs(entrant) for entrant in star]
        styles = self._styles(panel, np.unique(np.concatenate([at.ravel() for pair in pairs for at in pair])))
        found = scoring.style_ratings(
            np.array([(k + 1, 0) for k in range(len(star))]),
            [scoring.prompt_outcomes(panel.orders(entrant)) for entrant in star],
            [scoring.style_differences(styles[ours], styles[theirs]) for ours, theirs in pairs],
            scoring.bootstrap_counts(len(panel.prompts), scoring.STYLE_DRAWS, SEED),
            counter=self.counter.name,
            seed=SEED,
        )
        baseline = next(e.label for e in panel.entrants if e.kind in BASELINES)
        labels = [baseline, *(e.label for e in star)]
        return {
            label: replace(Styled(*rating.as_data().values()), style_counter=found.counter)
            for label, rating in zip(labels, found.ratings, strict=True)
        }

    def _styles(self, panel: Panel, wanted: Places) -> Floats:
        """(responses + 1, 4) style of those in these places; NaN elsewhere, so that place −1 has none."""
        assert self.counter is not None
        keys = {place: key for key, place in panel.judgments.places.items()}
        texts = self._responses({keys[int(place)] for place in wanted if place >= 0})
        styles = np.full((len(keys) + 1, len(scoring.FEATURES)), np.nan)
        for place in wanted[wanted >= 0]:
            styles[place] = scoring.style_vector(scoring.style_metadata(texts[keys[int(place)]], self.counter))
        return styles

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


def _counter() -> scoring.TokenCounter:
    """Arena-Hard's own, the one before it, or the embedded teacher's tokenizer where that is installed."""
    for name in ("o200k_base", "cl100k_base"):
        if found := scoring.tiktoken_counter(name):
            return found
    from dadpo_bench.models import find
    from dadpo_bench.models.embedded import NAME
    from dadpo_bench.models.loading import load_tokenizer

    try:
        tokenizer = load_tokenizer(find(NAME))
    except UserError as error:
        raise UserError(
            "--style counts tokens: pip install 'dadpo-bench[style]' and name the folder of its tables by "
            "TIKTOKEN_CACHE_DIR"
        ) from error
    return scoring.TokenCounter(NAME, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))


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
