"""Responses of local models. A batch of prompts is the unit of work and of resume."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dadpo_bench.contamination import label
from dadpo_bench.counts import counted
from dadpo_bench.models import SAMPLER_VERSION, batches, chat_tokenizer, frozen, respond
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.held import Held
from dadpo_bench.store import insert_missing, known_responses, schema
from dadpo_bench.store.rows import response_row, save_prompts, to_response
from dadpo_bench.types import Prompt, Response, Sampling, content_key


class Stored(NamedTuple):
    """A response with its key in the store."""

    key: str
    response: Response


class Request(NamedTuple):
    """What a model is to answer, and how."""

    model: LocalModel
    prompts: Sequence[Prompt]
    sampling: Sampling
    seed: int


class _Batch(NamedTuple):
    key: str
    prompts: tuple[Prompt, ...]
    model: LocalModel
    sampling: Sampling
    seed: int


def collect_responses(
    bench: Bench, model: LocalModel, prompts: Sequence[Prompt], sampling: Sampling, seed: int, label: str
) -> list[Stored]:
    """The model's responses to `prompts`, in their order; only batches not in the store are sampled."""
    return collect_all_responses(bench, [Request(model, prompts, sampling, seed)], label)[0]


def collect_all_responses(bench: Bench, requests: Sequence[Request], label: str) -> list[list[Stored]]:
    """`collect_responses` of every request, all that is owed in one go."""
    plans = [_batches(request) for request in requests]
    planned = {batch.key: batch for plan in plans for batch in plan}
    found: dict[tuple[str, str], Stored] = {}  # by batch and prompt
    with bench.store.read() as session:
        for row in known_responses(session, list(planned)):
            prompt = next(p for p in planned[row.batch_key].prompts if p.key == row.prompt_key)
            found[row.batch_key, prompt.key] = Stored(row.key, to_response(row, prompt))
    owed = [b for b in planned.values() if any((b.key, p.key) not in found for p in b.prompts)]
    _tell_of_long_prompts(bench, owed, label)
    with bench.reporter.bar(label, sum(len(b.prompts) for b in owed), "responses") as bar:
        for batch, replies in bench.engine.map(_Responder, owed, _named):
            stored = [Stored(content_key(batch.key, r.prompt.key), r) for r in replies]
            with bench.store.write() as session:
                save_prompts(session, batch.prompts)
                rows = [response_row(*s, batch.model.key, batch.key, batch.sampling) for s in stored]
                insert_missing(session, schema.Response, rows)
            found |= {(batch.key, s.response.prompt.key): s for s in stored}
            several = batch.model.name if len(requests) > 1 else ""
            bar.advance(len(stored), f"{several} {bench.engine.workers}".strip())
    return [_in_order(request, plan, found) for request, plan in zip(requests, plans, strict=True)]


def _in_order(request: Request, plan: Sequence[_Batch], found: Mapping[tuple[str, str], Stored]) -> list[Stored]:
    """Of its prompts, which batches hold by their lengths: trainings learn in this order."""
    batch_of = {prompt.key: batch.key for batch in plan for prompt in batch.prompts}
    return [found[batch_of[prompt.key], prompt.key] for prompt in request.prompts]


def _tell_of_long_prompts(bench: Bench, owed: Sequence[_Batch], label: str) -> None:
    by_model: dict[LocalModel, list[Prompt]] = {}
    for batch in owed:
        by_model.setdefault(batch.model, []).extend(batch.prompts)
    for model, prompts in by_model.items():
        tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
        if cut := sum(tokenizer.too_long(p.messages()) for p in prompts):
            whose = f"{label}, {model.name}" if len(by_model) > 1 else label
            bench.reporter.say(f"  {whose}: {counted(cut, 'prompts')} too long for the model, which reads the end only")


def _batches(request: Request) -> list[_Batch]:
    model, prompts, sampling, seed = request
    # Greedy replies do not depend on a seed: one set serves them all.
    seed = seed if sampling.temperature else 0

    def batch(group: Sequence[Prompt]) -> _Batch:
        keys = [p.key for p in group]
        key = content_key("batch", SAMPLER_VERSION, model.key, model.chat_template, keys, sampling, seed, str(frozen()))
        return _Batch(key, tuple(group), model, sampling, seed)

    return [batch(group) for group in batches(prompts, sampling.batch_size)]


def _named(batch: _Batch) -> str:
    first = batch.prompts[0]
    others = f" and {len(batch.prompts) - 1} more" if len(batch.prompts) > 1 else ""
    return f"prompt {first.id or first.key} ({label(first, 40)}){others}"


class _Responder:
    def __init__(self) -> None:
        self._held = Held()

    def __call__(self, batch: _Batch) -> list[Response]:
        model = batch.model
        (weights,) = self._held(frozen(), model)
        tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
        began = time.monotonic()
        responses = respond(weights, tokenizer, batch.prompts, batch.sampling, batch.seed)
        share = (time.monotonic() - began) / len(responses)
        return [response.model_copy(update={"seconds": share}) for response in responses]
