"""Signals: sequence log-probs of fixed responses under frozen models, scored once and kept for ever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select

from dadpo_bench.errors import WorkError
from dadpo_bench.lazily import Lazily
from dadpo_bench.models import (
    SCORER_VERSION,
    Branching,
    ChatTokenizer,
    Precision,
    chat_tokenizer,
    load_model,
    sequence_log_probs,
)
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Example, Pair, Prompt, Reply, SequenceLogProb, content_key

PAIRS = 16
"""Scored in one go."""


class _Batch(NamedTuple):
    what: str
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

    def branching(pair: Scored) -> Branching:
        return tokenizer.branching(pair.prompt, [pair.chosen, pair.rejected], sampled=sampled)

    keys = [tokens_keys(branching(pair)) for pair in pairs]
    known = known_signals(bench, model.key, [k for both in keys for k in both], str(precision), SCORER_VERSION)
    owed = [i for i, both in enumerate(keys) if any(k not in known for k in both)]

    def make() -> _Scorer:
        return _Scorer(model, precision)

    def batched(run: Sequence[int]) -> _Batch:
        return _Batch(_first(pairs[run[0]].prompt), [branching(pairs[i]) for i in run])

    batches = Lazily(list(chunks(owed, PAIRS)), batched)
    with bench.reporter.bar(label, len(owed), "pairs") as bar:
        for batch, results in bench.engine.map(make, batches, _named):
            fresh = {
                key: signal
                for pair, both in zip(batch.branchings, results, strict=True)
                for key, signal in zip(tokens_keys(pair), both, strict=True)
            }
            rows = [signal_row(model.key, k, s, str(precision), SCORER_VERSION) for k, s in fresh.items()]
            with bench.store.write() as session:
                insert_missing(session, schema.Signal, rows)
            for key, signal in fresh.items():
                # A response shared with pairs scored before keeps its first value: a resumed run must read the same.
                known.setdefault(key, signal)
            bar.advance(len(batch.branchings), bench.engine.workers)
    return [Pair(*(known[k].total for k in both)) for both in keys]


Scores = Callable[[Sequence[Branching]], list[list[SequenceLogProb]]]
"""What a frozen model gives every continuation; see `sequence_log_probs`."""


def local_scores(bench: Bench, model: LocalModel, precision: Precision) -> Scores:
    """By a local model, loaded where the engine has it."""

    def scores(branchings: Sequence[Branching]) -> list[list[SequenceLogProb]]:
        batch = _Batch(f"{model.name}'s own responses", list(branchings))
        ((_, found),) = bench.engine.map(lambda: _Scorer(model, precision), [batch], _named)
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
    def __init__(self, model: LocalModel, precision: Precision) -> None:
        self._model = load_model(model.directory, precision)
        self._precision = precision

    def __call__(self, batch: _Batch) -> list[list[SequenceLogProb]]:
        return sequence_log_probs(self._model, batch.branchings, self._precision)
