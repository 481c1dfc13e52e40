"""Signals: sequence log-probs of fixed responses under frozen models, scored once and kept for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from dadpo_bench.errors import WorkError
from dadpo_bench.models import (
    SCORER_VERSION,
    Branching,
    Precision,
    chat_tokenizer,
    load_model,
    sequence_log_probs,
)
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Example, Pair, Prompt, Reply, SequenceLogProb, content_key

_PAIRS = 16
"""Scored in one go."""


class _Batch(NamedTuple):
    first: Prompt
    branchings: list[Branching]


@dataclass(frozen=True)
class Scored:
    """Two responses to a prompt, to be scored."""

    prompt: Prompt
    chosen: Reply
    rejected: Reply


def collect_signals(
    bench: Bench,
    model: LocalModel,
    pairs: Sequence[Scored],
    precision: Precision,
    *,
    sampled: bool,
    label: str,
) -> list[Pair]:
    """log π(y|x) of both responses of every pair, in order; only what is not in the store is scored."""
    tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
    branchings = [tokenizer.branching(p.prompt, [p.chosen, p.rejected], sampled=sampled) for p in pairs]
    keys = [_keys(b) for b in branchings]
    known = _known(bench, model.key, [k for both in keys for k in both], precision)
    owed = [i for i, both in enumerate(keys) if any(k not in known for k in both)]

    def make() -> _Scorer:
        return _Scorer(model, precision)

    batches = [_Batch(pairs[run[0]].prompt, [branchings[i] for i in run]) for run in chunks(owed, _PAIRS)]
    with bench.reporter.bar(label, len(owed), "pairs") as bar:
        for batch, results in bench.engine.map(make, batches, _named):
            fresh = {
                key: signal
                for branching, both in zip(batch.branchings, results, strict=True)
                for key, signal in zip(_keys(branching), both, strict=True)
            }
            with bench.store.write() as session:
                insert_missing(session, schema.Signal, [_row(model, k, s, precision) for k, s in fresh.items()])
            # A response shared with pairs scored before keeps its first value: a resumed run must read the same.
            known = fresh | known
            bar.advance(len(batch.branchings), bench.engine.workers)
    return [Pair(*(known[k].total for k in both)) for both in keys]


def check_teacher(
    bench: Bench, model: LocalModel, lessons: Sequence[Example], precision: Precision, *, sampled: bool
) -> None:
    """Part of the pre-flight: a teacher finds its own responses likelier than those to other prompts (8 are tried).

    Raises `WorkError` otherwise: the template is wrong, or another model wrote the responses.
    """
    few = list(lessons[:8])
    if len(few) < 2:
        return
    tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
    branchings = [
        tokenizer.branching(here.prompt, [here.chosen, other.chosen], sampled=sampled)
        for here, other in zip(few, few[1:] + few[:1], strict=True)
    ]
    batch = _Batch(few[0].prompt, branchings)
    ((_, scores),) = bench.engine.map(lambda: _Scorer(model, precision), [batch], _named)
    own, others = (-sum(row[side].total for row in scores) / sum(row[side].tokens for row in scores) for side in (0, 1))
    if own >= others:
        raise WorkError(
            f"{model.name} gives its own responses {own:.2f} nats a token and other prompts' responses {others:.2f}: "
            "is this the model (and chat template) that wrote them?"
        )


def _keys(branching: Branching) -> list[str]:
    return [content_key("tokens", list(branching.prompt), list(y)) for y in branching.continuations]


def _known(bench: Bench, model_key: str, keys: Sequence[str], precision: Precision) -> dict[str, SequenceLogProb]:
    found: dict[str, SequenceLogProb] = {}
    with bench.store.read() as session:
        for chunk in chunks(keys):
            query = select(schema.Signal).where(
                schema.Signal.model_key == model_key,
                schema.Signal.precision == str(precision),
                schema.Signal.scorer_version == SCORER_VERSION,
                schema.Signal.tokens_key.in_(chunk),
            )
            found.update({s.tokens_key: SequenceLogProb(s.total, s.tokens) for s in session.scalars(query)})
    return found


def _row(model: LocalModel, key: str, signal: SequenceLogProb, precision: Precision) -> dict[str, object]:
    return {
        "model_key": model.key,
        "tokens_key": key,
        "precision": str(precision),
        "scorer_version": SCORER_VERSION,
        "total": signal.total,
        "tokens": signal.tokens,
    }


def _named(batch: _Batch) -> str:
    return f"{len(batch.branchings)} pairs from that of prompt {batch.first.id or batch.first.key} on"


class _Scorer:
    def __init__(self, model: LocalModel, precision: Precision) -> None:
        self._model = load_model(model.directory, precision)
        self._precision = precision

    def __call__(self, batch: _Batch) -> list[list[SequenceLogProb]]:
        return sequence_log_probs(self._model, batch.branchings, self._precision)
