"""Signals: sequence log-probs of fixed responses under frozen models, scored once and kept for ever."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sqlalchemy import select

from dadpo_bench.errors import WorkError
from dadpo_bench.models import (
    SCORER_VERSION,
    Branching,
    ChatTokenizer,
    Precision,
    chat_tokenizer,
    sequence_log_probs,
)
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.held import Held
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Example, Pair, Prompt, Reply, SequenceLogProb, content_key

PAIRS = 16
"""Scored in one go."""


class _Batch(NamedTuple):
    place: int
    what: str
    model: LocalModel
    precision: Precision
    branchings: Callable[[], list[Branching]]
    """Made where they are scored: whoever shares out batches need not hold them."""


@dataclass(frozen=True)
class Scored:
    """Two responses to a prompt, to be scored."""

    prompt: Prompt
    chosen: Reply
    rejected: Reply


class Scoring(NamedTuple):
    """What a model is to score, and in which format."""

    model: LocalModel
    pairs: Sequence[Scored]
    precision: Precision


def collect_signals(
    bench: Bench, model: LocalModel, pairs: Sequence[Scored], precision: Precision, *, sampled: bool, label: str
) -> list[Pair]:
    """log π(y|x) of both responses of every pair, in order; only what is not in the store is scored."""
    return collect_all_signals(bench, [Scoring(model, pairs, precision)], sampled=sampled, label=label)[0]


class _Run(NamedTuple):
    """Pairs of a scoring that are scored in one go."""

    scoring: Scoring
    pairs: Sequence[int]
    keys: list[str]
    """Of both responses of each."""
    own: set[str]
    """Those that nobody has and no run before it scores."""


def collect_all_signals(bench: Bench, scorings: Sequence[Scoring], *, sampled: bool, label: str) -> list[list[Pair]]:
    """`collect_signals` of every scoring, all that is owed in one go.

    A response that several pairs share has one signal, that of the first of them: in another batch it may be rounded
    otherwise, and whoever scores it again must read the same.
    """
    keys = [[tokens_keys(_branching(scoring.model, pair, sampled)) for pair in scoring.pairs] for scoring in scorings]
    known: dict[tuple[str, str], dict[str, SequenceLogProb]] = {}
    claimed: dict[tuple[str, str], set[str]] = {}
    runs: list[_Run] = []
    for scoring, pairs in zip(scorings, keys, strict=True):
        format = str(scoring.precision)
        there = known.setdefault(_frozen(scoring), {})
        there |= known_signals(bench, scoring.model.key, [k for both in pairs for k in both], format, SCORER_VERSION)
        taken = claimed.setdefault(_frozen(scoring), set())
        owed = [i for i, both in enumerate(pairs) if any(k not in there and k not in taken for k in both)]
        for places in chunks(owed, PAIRS):
            every = [key for i in places for key in pairs[i]]
            runs.append(_Run(scoring, places, every, set(every) - there.keys() - taken))
            taken |= runs[-1].own

    def batch(place: int, run: _Run) -> _Batch:
        model, pairs = run.scoring.model, [run.scoring.pairs[i] for i in run.pairs]
        branchings = partial(_branchings, model, pairs, sampled)
        return _Batch(place, _first(pairs[0].prompt), model, run.scoring.precision, branchings)

    batches = [batch(place, run) for place, run in enumerate(runs)]
    with bench.reporter.bar(label, sum(len(run.pairs) for run in runs), "pairs") as bar:
        for done, results in bench.engine.map(_Scorer, batches, _named):
            run, fresh = runs[done.place], dict[str, SequenceLogProb]()
            for key, signal in zip(run.keys, itertools.chain.from_iterable(results), strict=True):
                if key in run.own:
                    fresh.setdefault(key, signal)
            model, format = _frozen(run.scoring)
            with bench.store.write() as session:
                rows = [signal_row(model, key, signal, format, SCORER_VERSION) for key, signal in fresh.items()]
                insert_missing(session, schema.Signal, rows)
            known[model, format].update(fresh)
            bar.advance(len(results), bench.engine.workers)
    return [
        [Pair(*(known[_frozen(scoring)][key].total for key in both)) for both in pairs]
        for scoring, pairs in zip(scorings, keys, strict=True)
    ]


def _branching(model: LocalModel, pair: Scored, sampled: bool) -> Branching:
    tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
    return tokenizer.branching(pair.prompt, [pair.chosen, pair.rejected], sampled=sampled)


def _branchings(model: LocalModel, pairs: Sequence[Scored], sampled: bool) -> list[Branching]:
    return [_branching(model, pair, sampled) for pair in pairs]


def _frozen(scoring: Scoring) -> tuple[str, str]:
    """Whose numbers those are: the model's key, and the format."""
    return scoring.model.key, str(scoring.precision)


Scores = Callable[[Sequence[Branching]], list[list[SequenceLogProb]]]
"""What a frozen model gives every continuation; see `sequence_log_probs`."""


def local_scores(bench: Bench, model: LocalModel, precision: Precision) -> Scores:
    """By a local model, loaded where the engine has it."""

    def scores(branchings: Sequence[Branching]) -> list[list[SequenceLogProb]]:
        batch = _Batch(0, f"{model.name}'s own responses", model, precision, partial(list, branchings))
        ((_, found),) = bench.engine.map(_Scorer, [batch], _named)
        return found

    return scores


def check_teacher(
    name: str, tokenizer: ChatTokenizer, scores: Scores, lessons: Sequence[Example], *, sampled: bool
) -> None:
    """Part of the pre-flight: a teacher finds its own responses likelier than those to other prompts (8 are tried).

    Raises `WorkError` otherwise: the template is wrong, or another model wrote the responses.
    """
    few = list(lessons[:8])
    if len(few) < 2:
        return
    branchings = [
        tokenizer.branching(here.prompt, [here.chosen, other.chosen], sampled=sampled)
        for here, other in zip(few, few[1:] + few[:1], strict=True)
    ]
    found = scores(branchings)
    own, others = (-sum(row[side].total for row in found) / sum(row[side].tokens for row in found) for side in (0, 1))
    if own >= others:
        raise WorkError(
            f"{name} gives its own responses {own:.2f} nats a token and other prompts' responses {others:.2f}: "
            "is this the model (and chat template) that wrote them?"
        )


def tokens_keys(branching: Branching) -> list[str]:
    """Of each continuation with its prompt."""
    return [content_key("tokens", list(branching.prompt), list(y)) for y in branching.continuations]


def known_signals(
    bench: Bench, model_key: str, keys: Sequence[str], precision: str, version: int
) -> dict[str, SequenceLogProb]:
    """By tokens' key: those that are there."""
    found: dict[str, SequenceLogProb] = {}
    with bench.store.read() as session:
        for chunk in chunks(keys):
            query = select(schema.Signal).where(
                schema.Signal.model_key == model_key,
                schema.Signal.precision == precision,
                schema.Signal.scorer_version == version,
                schema.Signal.tokens_key.in_(chunk),
            )
            found.update({s.tokens_key: SequenceLogProb(s.total, s.tokens) for s in session.scalars(query)})
    return found


def signal_row(model_key: str, key: str, signal: SequenceLogProb, precision: str, version: int) -> dict[str, object]:
    """How a signal is stored."""
    return {
        "model_key": model_key,
        "tokens_key": key,
        "precision": precision,
        "scorer_version": version,
        "total": signal.total,
        "tokens": signal.tokens,
    }


def _named(batch: _Batch) -> str:
    return batch.what


def _first(prompt: Prompt) -> str:
    return f"pairs from that of prompt {prompt.id or prompt.key} on"


class _Scorer:
    def __init__(self) -> None:
        self._held = Held()

    def __call__(self, batch: _Batch) -> list[list[SequenceLogProb]]:
        (weights,) = self._held(batch.precision, batch.model)
        return sequence_log_probs(weights, batch.branchings(), batch.precision)
