"""What a person brings to a board: somebody's length-control coefficients, and labels that correct the judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session, object_session

from dadpo_bench import registry, scoring
from dadpo_bench.errors import UserError
from dadpo_bench.judging.judgments import Judgments, Places, told_apart
from dadpo_bench.judging.labelled import read_pairs
from dadpo_bench.panels import SEED, Entrant, Floats, Panel
from dadpo_bench.scores import Controlled, Corrected, Styled
from dadpo_bench.store import schema
from dadpo_bench.store.rows import chunks

_Pair = tuple[tuple[str, ...], str, str]
"""The user's turns, the contestant's text and the baseline's."""

_Counted = dict[tuple[scoring.TokenCounter, str], Floats]
"""The style of each response, by its key and who counted its tokens: other judges' boards have the same."""


@dataclass(frozen=True)
class Lenses:
    """A `scores.Lens` of all that was brought."""

    coefficients: Mapping[str, scoring.Coefficients] = field(default_factory=dict)
    difficulty: Mapping[str, float] = field(default_factory=dict)
    judge: schema.Judge | None = None
    """A stronger judge, whose verdicts are labels."""
    labels: Mapping[_Pair, Sequence[float]] = field(default_factory=dict)
    """Every vote on a comparison: 1 the contestant's response is better, 0 the baseline's."""
    style: bool = False
    """Whether ratings at equal style are asked for."""
    matched: list[int] = field(default_factory=list)
    """Of each row of a contestant how many prompts have a label."""
    _counted: _Counted = field(default_factory=dict)
    _boards: list[_Board] = field(default_factory=list)
    """The one that is looked at: what is read of it serves all its tasks, categories and contestants."""

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

        Raises `UserError` for files that cannot be read, and for a judge that is unknown or one of several of its name.
        """
        if coefficients is None and difficulty is None and labels is None and not style:
            return None
        judge, votes = _labels(session, labels) if labels else (None, {})
        return cls(
            scoring.read_coefficients(coefficients) if coefficients else {},
            scoring.read_difficulty(difficulty) if difficulty else {},
            judge,
            votes,
            style,
        )

    def check(self) -> None:
        """Behind all rows. Raises `UserError` where labels were brought and none is of a comparison on the board."""
        if (self.judge or self.labels) and not any(self.matched):
            raise UserError("--labels: none of them is of a comparison that the board's judge scored")

    def controlled(self, panel: Panel, entrant: Entrant) -> Controlled | None:
        """By the coefficients of the contestant's name; there is no error where only coefficients are given."""
        if entrant.label not in self.coefficients:
            return None
        asked = scoring.nanmean(scoring.prompt_outcomes(panel.orders(entrant)), 0)
        scored = [prompt for prompt, outcome in zip(panel.prompts, asked, strict=True) if not np.isnan(outcome)]
        if not scored:
            return None
        turns = self._board(panel).turns(panel.prompts)
        instructions = [turns[prompt][0] for prompt in scored]
        try:
            rate = scoring.published_win_rate(self.coefficients[entrant.label], self.difficulty, instructions)
        except UserError as error:
            return Controlled(length_control=str(error))
        return Controlled(length_controlled_win_rate=rate, length_control="given coefficients")

    def corrected(self, panel: Panel, entrant: Entrant, outcomes: Floats) -> Corrected:
        """By the labels of this contestant's comparisons; where there are too few of them, these are counted."""
        if self.judge is None and not self.labels:
            return Corrected()
        labels = self._labels_of(panel, entrant)
        usable = int((~np.isnan(labels) & ~np.isnan(outcomes)).any(0).sum())
        self.matched.append(usable)
        if usable < scoring.MINIMUM_LABELS:
            return Corrected(corrected_labels=usable)
        found = scoring.corrected_win_rate(outcomes, labels)
        return Corrected(found.win_rate, found.low, found.high, found.labels)

    def styled(self, panel: Panel) -> dict[str, Styled]:
        """Everybody against the baseline, refitted with what their responses differ in beside content."""
        star = panel.contestants
        if not self.style or panel.standard is None or not star:
            return {}
        board = self._board(panel)
        pairs = [panel.pairs(entrant) for entrant in star]
        styles = board.styles(np.unique(np.concatenate([at.ravel() for pair in pairs for at in pair])))
        found = scoring.style_ratings(
            np.array([(k + 1, 0) for k in range(len(star))]),
            [scoring.prompt_outcomes(panel.orders(entrant)) for entrant in star],
            [scoring.style_differences(styles[ours], styles[theirs]) for ours, theirs in pairs],
            scoring.bootstrap_counts(len(panel.prompts), scoring.STYLE_DRAWS, SEED),
            counter=board.counter.name,
            seed=SEED,
        )
        labels = [panel.standard.label, *(e.label for e in star)]
        return {
            label: replace(Styled(*rating.as_data().values()), style_counter=found.counter)
            for label, rating in zip(labels, found.ratings, strict=True)
        }

    def _labels_of(self, panel: Panel, entrant: Entrant) -> Floats:
        """(seeds, prompts) in [0, 1], the mean of all votes; NaN where there is none."""
        ours, theirs = panel.pairs(entrant)
        board = self._board(panel)
        if self.judge is not None:
            return scoring.prompt_outcomes(board.said_by(self.judge).outcomes(ours, theirs))
        texts, turns = board.texts(np.concatenate([ours, theirs])), board.turns(panel.prompts)
        found = np.full(ours.shape, np.nan)
        for (seed, place), mine in np.ndenumerate(ours):
            other = int(theirs[seed, place])
            if mine >= 0 and other >= 0:
                votes = self.labels.get((turns[panel.prompts[place]], texts[int(mine)], texts[other]))
                found[seed, place] = np.mean(votes) if votes else np.nan
        return found

    def _board(self, panel: Panel) -> _Board:
        if not self._boards or self._boards[0].judgments is not panel.judgments:
            self._boards[:] = [_Board(panel, self._counted)]
        return self._boards[0]


class _Board:
    """What was said and written of one board, each read when first asked for."""

    def __init__(self, panel: Panel, counted: _Counted) -> None:
        session = object_session(panel.task)
        assert session is not None
        self._session = session
        """Its own store's: a board of several stores is seen through the same lens."""
        self._protocol_key = panel.entrants[0].contestants[0].protocol_key
        self.judgments = panel.judgments
        self._keys = list(panel.judgments.places)
        """Of responses, by their places."""
        self._texts: dict[int, str] = {}
        self._turns: dict[str, tuple[str, ...]] = {}
        self._said: Judgments | None = None
        self._counted = counted

    def said_by(self, judge: schema.Judge) -> Judgments:
        """What another judge, the same at every call, said of the board's responses."""
        if self._said is None:
            self._said = Judgments(self._session, judge, self.judgments.places)
        return self._said

    def turns(self, prompts: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The user's turns of these prompts, and of others."""
        for keys in chunks([prompt for prompt in prompts if prompt not in self._turns]):
            query = select(schema.Prompt.key, schema.Prompt.turns).where(schema.Prompt.key.in_(keys))
            self._turns |= {key: tuple(turns) for key, turns in self._session.execute(query)}
        return self._turns

    def texts(self, wanted: Places) -> dict[int, str]:
        """The responses in these places, and in others."""
        missing = {self._keys[at]: at for at in np.unique(wanted).tolist() if at >= 0 and at not in self._texts}
        for keys in chunks(list(missing)):
            query = select(schema.Response.key, schema.Response.replies).where(schema.Response.key.in_(keys))
            for key, replies in self._session.execute(query):
                self._texts[missing[key]] = "\n\n".join(reply["text"] for reply in replies)
        return self._texts

    def styles(self, wanted: Places) -> Floats:
        """(responses + 1, 4) style of those in these places; NaN elsewhere, so that place −1 has none."""
        places = [at for at in np.unique(wanted).tolist() if at >= 0]
        missing = [at for at in places if (self.counter, self._keys[at]) not in self._counted]
        texts = self.texts(np.array(missing, dtype=np.int64))
        for at in missing:
            vector = scoring.style_vector(scoring.style_metadata(texts[at], self.counter))
            self._counted[self.counter, self._keys[at]] = vector
        styles = np.full((len(self._keys) + 1, len(scoring.FEATURES)), np.nan)
        for at in places:
            styles[at] = self._counted[self.counter, self._keys[at]]
        return styles

    @cached_property
    def counter(self) -> scoring.TokenCounter:
        """Who counts tokens on this board."""
        settings = self._session.get_one(schema.Protocol, self._protocol_key).settings
        return _counter(tuple(settings[role].get("model") or "" for role in ("student", "teacher") if role in settings))


@cache
def _counter(models: tuple[str, ...]) -> scoring.TokenCounter:
    """Arena-Hard's own, the one before it, the tokenizer of the first model at hand, or the embedded teacher's."""
    for name in ("o200k_base", "cl100k_base"):
        if found := scoring.tiktoken_counter(name):
            return found
    from dadpo_bench.models import find
    from dadpo_bench.models.embedded import NAME
    from dadpo_bench.models.loading import at_hand, load_tokenizer

    for model in [*(model for model in models if model and at_hand(model)), NAME]:
        try:
            tokenizer = load_tokenizer(find(model), "no chat is rendered where tokens are counted")
        except UserError:
            continue
        return scoring.TokenCounter(f"the tokenizer of {Path(model).name}", partial(_tokens, tokenizer))
    raise UserError(
        "--style counts tokens: pip install 'dadpo-bench[style]' and name the folder of its tables by "
        "TIKTOKEN_CACHE_DIR"
    )


def _tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _labels(session: Session, labels: str) -> tuple[schema.Judge | None, dict[_Pair, list[float]]]:
    judges = session.scalars(select(schema.Judge).order_by(schema.Judge.name, schema.Judge.key)).all()
    named = dict(zip(told_apart(judges), judges, strict=True))
    if labels in named:
        return named[labels], {}
    if several := [name for name, judge in named.items() if judge.name == labels]:
        raise UserError(f"--labels: several judges are called '{labels}': name one of {', '.join(several)}")
    if not Path(labels).is_file():
        raise UserError(f"--labels: {registry.unknown('judge or file', labels, sorted(named))}")
    # A comparison is its texts here, whatever the file tells of system and reference beside; equal ones are both sides.
    votes: dict[_Pair, list[float]] = defaultdict(list)
    for pair in read_pairs(Path(labels)).pairs:
        turns, (first, second) = pair.first.prompt.turns, pair.texts
        votes[turns, first, second] += pair.labels
        votes[turns, second, first] += [1 - label for label in pair.labels]
    return None, votes
