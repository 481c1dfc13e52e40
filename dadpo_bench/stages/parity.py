"""The parity gate: whether a served teacher's log-probs are a function of the tokens, and the model's own.

A preference method learns from differences of sums of these log-probs. One that depends on what else was asked, or is
another model's, trains a student without a sign that anything is wrong.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import (
    Branching,
    ChatTokenizer,
    find,
    frozen,
    load_model,
    token_scores,
    tokenizer_key,
)
from dadpo_bench.models.memory import release_memory
from dadpo_bench.stages.served import ServedModel
from dadpo_bench.stages.served_signals import token_scores_at
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Continuation, Prompt

SAMPLE = 8
"""Responses that are scored again, two to a prompt: what a prefix cache shares."""
SMALL_BATCH = 3
"""Responses of a request the second time, in the reverse order."""
MEAN_TOLERANCE = 0.1
"""Nats a token, mean of absolute differences. A sound server in bf16 differs from itself by 0.04 in another order, and
from fp32 by as much (`benchmarks/served.py`): twice that. A position that holds another request's value is off by nats.
"""
LARGEST_TOLERANCE = 2.0
"""Nats on any one token, where bf16 was seen to move one of random words by 0.8."""
_PROMPTS = 2
"""Whose length by the server's chat template is compared."""

_CACHE = (
    "a prefix cache (vllm-project/vllm issue 42019): start vLLM with --no-enable-prefix-caching, SGLang with "
    "--disable-radix-cache"
)
_SERVERS = "other weights, or another number format, than the first server's: start all with the same model and --dtype"
_DTYPE = "other weights than teacher.weights, a quantised server, or another number format (--dtype)"
_BEGINNING = "a beginning-of-text token or chat template that the server puts before the ids it is sent"


class Difference(NamedTuple):
    """Between two scorings of the same tokens, nats."""

    mean: float
    """Of absolute differences, a token."""
    largest: float
    early: float
    """Share of all that differs which lies in the first quarter of the responses."""

    @property
    def within(self) -> bool:
        """The stated tolerance."""
        return self.mean <= MEAN_TOLERANCE and self.largest <= LARGEST_TOLERANCE

    def __str__(self) -> str:
        return f"{self.mean:.4f} nats a token in the mean, {self.largest:.3f} at most"


def difference(ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> Difference:
    """Of two scorings of the same responses, token by token."""
    gaps = [np.abs(np.subtract(one, other)) for one, other in zip(ones, others, strict=True)]
    whole = np.concatenate(gaps)
    early = sum(float(gap[: -(-len(gap) // 4)].sum()) for gap in gaps)
    total = float(whole.sum())
    return Difference(float(whole.mean()), float(whole.max()), early / total if total else 0.0)


def check_parity(
    model: ServedModel, tokenizer: ChatTokenizer, continuations: Sequence[Continuation], prompts: Sequence[Prompt]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what was found, a line with its figures at a time. Raises `WorkError` above the tolerance.

    Each server that is up is asked twice, in another order and other batches; they are held against each other, and
    against local weights where the recipe names some. Servers may be started anew between two runs, so what a run owes
    is checked again in it. The last of `continuations` are taken, under a salt of their own: a cache that held them
    already would answer both times alike, and wrong.
    """
    few, salt = list(continuations[-SAMPLE:]), secrets.token_hex(8)
    yield _template(model, tokenizer, prompts)
    first: list[list[float]] | None = None
    for place, name in enumerate(model.scorer.servers):
        try:
            once = token_scores_at(model, [few], place, salt)
            again = token_scores_at(model, list(chunks(few[::-1], SMALL_BATCH)), place, salt)[::-1]
        except WorkError as error:
            if len(model.scorer.servers) == 1:
                raise
            yield f"{name}: not checked ({error})", {"server": name, "checked": False}
            continue
        found = difference(once, again)
        _refuse(found, f"{model.name} at {name}, scored again in another order and batch", _CACHE)
        yield f"{name}, scored again in another order: {found}", _figures("again", name, found)
        if first is None:
            first = once
        else:
            between = difference(first, once)
            _refuse(between, f"{model.name} at {name}, held against {model.scorer.servers[0]}", _SERVERS)
            yield f"{name}, held against the first server: {between}", _figures("servers", name, between)
    if first is None:
        raise WorkError(f"no server of {model.name} could be checked; run the same command again")
    if model.teacher.weights:
        local = difference(_at_hand(model, few), first)
        cause = _BEGINNING if local.early > 0.75 else _DTYPE
        _refuse(local, f"{model.name}, held against the weights of teacher.weights in {frozen()}", cause)
        yield f"held against local weights in {frozen()}: {local}", _figures("weights", str(frozen()), local)


def _refuse(found: Difference, what: str, cause: str) -> None:
    if not found.within:
        raise WorkError(
            f"{what}: {found}, where {MEAN_TOLERANCE:g} and {LARGEST_TOLERANCE:g} are allowed; no signal is taken from "
            f"it. The likely cause: {cause}"
        )


def _figures(kind: str, of: str, found: Difference) -> dict[str, Any]:
    return {"kind": kind, "of": of, "mean": round(found.mean, 6), "largest": round(found.largest, 6)}


def _template(model: ServedModel, tokenizer: ChatTokenizer, prompts: Sequence[Prompt]) -> tuple[str, dict[str, Any]]:
    """Whether the server renders prompts as the tokenizer here does, as far as their lengths tell."""
    few = [p for p in prompts if not tokenizer.too_long(p.messages())][:_PROMPTS]
    for place, told in model.scorer.prompt_tokens(few):
        ours = len(tokenizer.prompt_ids(few[place].messages()))
        if isinstance(told, str):
            return f"the server's chat template is not checked ({told})", {"kind": "template", "checked": False}
        if told != ours:
            raise WorkError(
                f"{model.name}: the server makes {told} tokens of prompt '{few[place].id}', the tokenizer named here "
                f"{ours}. The likely cause: another chat template (start the server with this one by --chat-template, "
                "or give its own as teacher.chat_template) or another tokenizer"
            )
    return f"the server renders {len(few)} prompts as long as here", {"kind": "template", "prompts": len(few)}


def _at_hand(model: ServedModel, few: Sequence[Continuation]) -> list[list[float]]:
    directory = find(str(model.teacher.weights))
    if model.directory is None or tokenizer_key(directory) != tokenizer_key(model.directory):
        raise UserError("teacher.weights: their tokenizer is another than teacher.tokenizer names")
    branchings = [Branching(continuation.prompt, [continuation.ids]) for continuation in few]
    rows = token_scores(load_model(directory, frozen()), branchings, frozen())
    release_memory()
    return [row[0] for row in rows]
