"""Responses of local models. A batch of prompts is the unit of work and of resume."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from dadpo_bench.contamination import label
from dadpo_bench.counts import counted
from dadpo_bench.models import SAMPLER_VERSION, batches, chat_tokenizer, frozen, load_model, respond
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.store import insert_missing, known_responses, schema
from dadpo_bench.store.rows import response_row, save_prompts, to_response
from dadpo_bench.types import Prompt, Response, Sampling, content_key


class Stored(NamedTuple):
    """A response with its key in the store."""

    key: str
    response: Response


class _Batch(NamedTuple):
    key: str
    prompts: tuple[Prompt, ...]


def collect_responses(
    bench: Bench, model: LocalModel, prompts: Sequence[Prompt], sampling: Sampling, seed: int, label: str
) -> list[Stored]:
    """The model's responses to `prompts`, in their order; only batches not in the store are sampled."""
    # Greedy replies do not depend on a seed: one set serves them all.
    seed = seed if sampling.temperature else 0
    plan = [_batch(model, group, sampling, seed) for group in batches(prompts, sampling.batch_size)]
    by_prompt = {p.key: p for p in prompts}
    with bench.store.read() as session:
        known = known_responses(session, [b.key for b in plan])
        found = {row.prompt_key: Stored(row.key, to_response(row, by_prompt[row.prompt_key])) for row in known}
    owed = [b for b in plan if any(p.key not in found for p in b.prompts)]

    def make() -> _Responder:
        return _Responder(model, sampling, seed)

    if owed:
        _tell_of_long_prompts(bench, model, [p for b in owed for p in b.prompts], label)
    with bench.reporter.bar(label, sum(len(b.prompts) for b in owed), "responses") as bar:
        for batch, replies in bench.engine.map(make, owed, _named):
            stored = [Stored(content_key(batch.key, r.prompt.key), r) for r in replies]
            with bench.store.write() as session:
                save_prompts(session, batch.prompts)
                rows = [response_row(*s, model.key, batch.key, sampling) for s in stored]
                insert_missing(session, schema.Response, rows)
            found.update({s.response.prompt.key: s for s in stored})
            bar.advance(len(stored), bench.engine.workers)
    return [found[p.key] for p in prompts]


def _tell_of_long_prompts(bench: Bench, model: LocalModel, prompts: Sequence[Prompt], label: str) -> None:
    tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
    if cut := sum(tokenizer.too_long(p.messages()) for p in prompts):
        bench.reporter.say(f"  {label}: {counted(cut, 'prompts')} too long for the model, which reads the end only")


def _batch(model: LocalModel, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> _Batch:
    keys = [p.key for p in prompts]
    key = content_key("batch", SAMPLER_VERSION, model.key, model.chat_template, keys, sampling, seed, str(frozen()))
    return _Batch(key, tuple(prompts))


def _named(batch: _Batch) -> str:
    first = batch.prompts[0]
    others = f" and {len(batch.prompts) - 1} more" if len(batch.prompts) > 1 else ""
    return f"prompt {first.id or first.key} ({label(first, 40)}){others}"


class _Responder:
    def __init__(self, model: LocalModel, sampling: Sampling, seed: int) -> None:
        self._tokenizer = chat_tokenizer(str(model.directory), model.chat_template)
        self._model = load_model(model.directory, frozen())
        self._sampling, self._seed = sampling, seed

    def __call__(self, batch: _Batch) -> list[Response]:
        began = time.monotonic()
        responses = respond(self._model, self._tokenizer, batch.prompts, self._sampling, self._seed)
        share = (time.monotonic() - began) / len(responses)
        return [response.model_copy(update={"seconds": share}) for response in responses]
