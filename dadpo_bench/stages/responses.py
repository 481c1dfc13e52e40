"""Responses of local models. A batch of prompts is the unit of work and of resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from dadpo_bench.contamination import label
from dadpo_bench.counts import counted
from dadpo_bench.models import SAMPLER_VERSION, batches, chat_tokenizer, frozen, respond
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.held import Held
from dadpo_bench.store import Store, insert_missing, known_responses, schema
from dadpo_bench.store.rows import chunks, response_row, responses_of, save_prompts, to_response
from dadpo_bench.types import Prompt, Response, Sampling, content_key


class Stored(NamedTuple):
    """A response with its key in the store."""

    key: str
    response: Response


class Responses(Sequence[Stored]):
    """Responses in the store, read when they are looked at: whoever collects a million holds their keys."""

    def __init__(
        self, store: Store, places: Sequence[tuple[Prompt, str]], shown: Callable[[Stored], Stored] | None = None
    ) -> None:
        self._store, self._shown = store, shown
        self.places = list(places)
        """Prompts, and the keys of their responses."""

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Stored: ...
    @overload
    def __getitem__(self, index: slice) -> list[Stored]: ...
    def __getitem__(self, index: int | slice) -> Stored | list[Stored]:
        if isinstance(index, slice):
            return self._read(self.places[index])
        return self._read([self.places[index]])[0]

    def __iter__(self) -> Iterator[Stored]:
        for some in chunks(self.places):
            yield from self._read(some)

    def _read(self, places: Sequence[tuple[Prompt, str]]) -> list[Stored]:
        with self._store.read() as session:
            rows = responses_of(session, [key for _, key in places])
            found = [Stored(key, to_response(rows[key], prompt)) for prompt, key in places]
        return [self._shown(stored) for stored in found] if self._shown else found


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
) -> Responses:
    """The model's responses to `prompts`, in their order; only batches not in the store are sampled."""
    return collect_all_responses(bench, [Request(model, prompts, sampling, seed)], label)[0]


def collect_all_responses(bench: Bench, requests: Sequence[Request], label: str) -> list[Responses]:
    """`collect_responses` of every request, all that is owed in one go."""
    plans = [_batches(request) for request in requests]
    planned = {batch.key: batch for plan in plans for batch in plan}
    with bench.store.read() as session:
        keys = {(row.batch_key, row.prompt_key): row.key for row in known_responses(session, list(planned))}
    owed = [b for b in planned.values() if any((b.key, p.key) not in keys for p in b.prompts)]
    _tell_of_long_prompts(bench, owed, label)
    several = len({request.model for request in requests}) > 1
    with bench.reporter.bar(label, sum(len(b.prompts) for b in owed), "responses") as bar:
        for batch, replies in bench.engine.map(_Responder, owed, _named):
            stored = [Stored(content_key(batch.key, r.prompt.key), r) for r in replies]
            with bench.store.write() as session:
                save_prompts(session, batch.prompts)
                rows = [response_row(*s, batch.model.key, batch.key, batch.sampling) for s in stored]
                insert_missing(session, schema.Response, rows)
            keys |= {(batch.key, s.response.prompt.key): s.key for s in stored}
            whose = batch.model.name if several else ""
            bar.advance(len(stored), f"{whose} {bench.engine.workers}".strip())
    return [Responses(bench.store, _places(request, plan, keys)) for request, plan in zip(requests, plans, strict=True)]


def _places(request: Request, plan: Sequence[_Batch], keys: Mapping[tuple[str, str], str]) -> list[tuple[Prompt, str]]:
    """In the order of its prompts, which batches hold by their lengths: trainings learn in this order."""
    batch_of = {prompt.key: batch.key for batch in plan for prompt in batch.prompts}
    return [(prompt, keys[batch_of[prompt.key], prompt.key]) for prompt in request.prompts]


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
