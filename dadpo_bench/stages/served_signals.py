"""Signals of a teacher behind an endpoint: token-budgeted requests, kept as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.interrupts import finishing
from dadpo_bench.models import Branching, ChatTokenizer
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.served import ServedModel
from dadpo_bench.stages.signals import Scored, Scores, known_signals, signal_row, tokens_keys
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.types import Continuation, Pair, SequenceLogProb

BATCH_TOKENS = 16_384
"""Of one request, unless the recipe says otherwise: some hundred responses, and an answer of about a megabyte."""


def batches_of(continuations: Sequence[Continuation], tokens: int) -> list[list[Continuation]]:
    """In their order, together as long as they have at most so many tokens; a longer one is alone."""
    batches: list[list[Continuation]] = []
    filled = tokens
    for continuation in continuations:
        if filled + continuation.tokens > tokens:
            batches.append([])
            filled = 0
        batches[-1].append(continuation)
        filled += continuation.tokens
    return batches


def collect_served_signals(
    bench: Bench,
    model: ServedModel,
    tokenizer: ChatTokenizer,
    pairs: Sequence[Scored],
    *,
    sampled: bool,
    label: str,
    before: Callable[[Sequence[Continuation]], None],
) -> list[Pair]:
    """As `collect_signals`, a response at a time: only those not in the store are sent.

    `before` is called with what is owed, if anything is. The first Ctrl-C lets what is in flight arrive.
    Raises `WorkError` where responses stay unscored, `UserError` where the server takes none so long.
    """
    branchings = [tokenizer.branching(p.prompt, [p.chosen, p.rejected], sampled=sampled) for p in pairs]
    keys = [tokens_keys(b) for b in branchings]
    continuations = {
        key: Continuation(branching.prompt, ids)
        for branching, both in zip(branchings, keys, strict=True)
        for key, ids in zip(both, branching.continuations, strict=True)
    }
    precision, version = model.precision, model.scorer.version
    known = known_signals(bench, model.key, list(continuations), precision, version)
    owed = {key: continuation for key, continuation in continuations.items() if key not in known}
    batches = batches_of(list(owed.values()), model.teacher.batch_tokens or BATCH_TOKENS)
    names = iter(owed)
    keyed = [[next(names) for _ in batch] for batch in batches]
    failed: list[str] = []

    def finish() -> None:
        bench.reporter.say("  finishing what is in flight; Ctrl-C again stops at once")
        model.scorer.finish()

    with bench.reporter.bar(label, len(owed), "responses") as bar:
        if owed:
            before(list(owed.values()))
            found = model.scorer.scores(batches)
            with finishing(finish), closing(found):
                for place, scores in found:
                    if isinstance(scores, str):
                        failed.append(_told(scores, batches[place], model))
                        continue
                    fresh = {
                        key: SequenceLogProb(sum(row), len(row)) for key, row in zip(keyed[place], scores, strict=True)
                    }
                    rows = [signal_row(model.key, k, s, precision, version) for k, s in fresh.items()]
                    with bench.store.write() as session:
                        insert_missing(session, schema.Signal, rows)
                    known |= fresh
                    bar.advance(len(fresh))
            bench.reporter.say(f"  {label}: {model.scorer.bill()}")
    if missing := len(continuations) - len(known):
        raise WorkError(
            f"{label}: {counted(missing, 'responses')} unscored ({'; '.join(dict.fromkeys(failed))}); run the same "
            "command again"
        )
    return [Pair(*(known[k].total for k in both)) for both in keys]


def served_scores(model: ServedModel) -> Scores:
    """What the model gives every continuation, nothing kept. Raises as `collect_served_signals`."""

    def scores(branchings: Sequence[Branching]) -> list[list[SequenceLogProb]]:
        continuations = [Continuation(b.prompt, ids) for b in branchings for ids in b.continuations]
        rows = token_scores_at(model, batches_of(continuations, model.teacher.batch_tokens or BATCH_TOKENS))
        totals = (SequenceLogProb(sum(row), len(row)) for row in rows)
        return [[next(totals) for _ in branching.continuations] for branching in branchings]

    return scores


def token_scores_at(
    model: ServedModel, batches: Sequence[Sequence[Continuation]], server: int | None = None, salt: str = ""
) -> list[list[float]]:
    """Log-prob of every token of every continuation, in order; see `TokenScorer.scores`.

    Raises `WorkError` where some have none, `UserError` where the server takes none so long.
    """
    found: dict[int, list[list[float]]] = {}
    with closing(model.scorer.scores(batches, server, salt)) as answers:
        for place, scores in answers:
            if isinstance(scores, str):
                why = _told(scores, batches[place], model)
                raise WorkError(f"teacher {model.name}: {why}; run the same command again")
            found[place] = scores
    return [row for place in range(len(batches)) for row in found[place]]


def _told(reason: str, batch: Sequence[Continuation], model: ServedModel) -> str:
    """Raises `UserError` where it can be mended."""
    if reason == "too long":
        longest = max(continuation.tokens for continuation in batch)
        raise UserError(
            f"a prompt with its response has up to {longest:,} tokens, which is too long for the server of "
            f"{model.name}: start it with a longer context (vLLM: --max-model-len, SGLang: --context-length), or lower "
            "teacher_sampling.max_new_tokens and student_sampling.max_new_tokens, or the methods' max_tokens"
        )
    return reason
