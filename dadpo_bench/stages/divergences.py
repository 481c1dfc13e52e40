"""The judge-free columns of local models: KL from and to the teacher on samples drawn for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from dadpo_bench.models import Branching, chat_tokenizer, frozen, tokenizer_key
from dadpo_bench.models.divergence import Total, kl_divergence
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.held import Held
from dadpo_bench.stages.responses import Request, Stored, collect_all_responses
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.store.rows import chunks
from dadpo_bench.types import Prompt, Sampling, content_key


@dataclass(frozen=True)
class Kl:
    """Nats a token between a model and the teacher."""

    from_teacher: float
    """KL(teacher‖model) on the teacher's samples: the model cannot choose the text."""
    to_teacher: float
    """KL(model‖teacher) on the model's own samples; loops lower it."""


@dataclass(frozen=True)
class _Direction:
    key: str
    model: LocalModel
    teacher: LocalModel
    samples: tuple[tuple[Branching, Branching], ...]
    reverse: bool


def divergences(
    bench: Bench, wanted: Sequence[tuple[LocalModel, Sequence[Prompt]]], teacher: LocalModel, limit: int
) -> list[Kl | None]:
    """Of each model both divergences, on samples at temperature 1, top-p 1, of each of its prompts' first turn.

    All that is owed is drawn, and measured, in one go. None where a model's tokenizer is not the teacher's: there is no
    shared vocabulary to sum over.
    """
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=limit)
    shared = [bool(prompts) and _shares_vocabulary(model, teacher) for model, prompts in wanted]
    requests = [
        Request(speaker, _first_turns(prompts), sampling, 0)
        for (model, prompts), there in zip(wanted, shared, strict=True)
        if there
        for speaker in (teacher, model)
    ]
    drawn = iter(collect_all_responses(bench, requests, "samples for the KL columns"))
    directions = [
        [_direction(model, teacher, next(drawn), reverse) for reverse in (False, True)] if there else []
        for (model, _), there in zip(wanted, shared, strict=True)
    ]
    every = {direction.key: direction for both in directions for direction in both}
    totals: dict[str, Total] = {}
    with bench.store.read() as session:
        for some in chunks(list(every)):
            query = select(schema.Divergence).where(schema.Divergence.key.in_(some))
            totals |= {row.key: Total(row.nats, row.tokens) for row in session.scalars(query)}
    owed = [direction for key, direction in every.items() if key not in totals]
    with bench.reporter.bar("KL from and to the teacher", len(owed), "directions") as bar:
        for direction, total in bench.engine.map(_Measure, owed, _named):
            with bench.store.write() as session:
                fresh = {"key": direction.key, "nats": total.nats, "tokens": total.tokens}
                insert_missing(session, schema.Divergence, [fresh])
            totals[direction.key] = total
            bar.advance(1, bench.engine.workers)
    rates = [[totals[d.key].nats / totals[d.key].tokens for d in both] for both in directions]
    return [Kl(*both) if both else None for both in rates]


def _shares_vocabulary(model: LocalModel, teacher: LocalModel) -> bool:
    return tokenizer_key(model.directory) == tokenizer_key(teacher.directory)


def _first_turns(prompts: Sequence[Prompt]) -> list[Prompt]:
    return [Prompt(id=p.id, turns=p.turns[:1], category=p.category, system=p.system) for p in prompts]


def _direction(model: LocalModel, teacher: LocalModel, drawn: Sequence[Stored], reverse: bool) -> _Direction:
    p, q = (model, teacher) if reverse else (teacher, model)
    tokenizers = [chat_tokenizer(str(side.directory), side.chat_template) for side in (p, q)]

    def rendered(stored: Stored) -> tuple[Branching, Branching]:
        first, second = (
            t.branching(stored.response.prompt, [stored.response.replies[0]], sampled=True) for t in tokenizers
        )
        return first, second

    samples = tuple(map(rendered, drawn))
    ids = [[list(side.prompt), list(side.continuations[0])] for sample in samples for side in sample]
    key = content_key("kl", p.key, q.key, ids, str(frozen()))
    return _Direction(key, model, teacher, samples, reverse)


def _named(direction: _Direction) -> str:
    return f"KL of {direction.model.name} {'to' if direction.reverse else 'from'} the teacher"


class _Measure:
    def __init__(self) -> None:
        self._held = Held()

    def __call__(self, direction: _Direction) -> Total:
        pair = (direction.model, direction.teacher) if direction.reverse else (direction.teacher, direction.model)
        first, second = self._held(frozen(), *pair)
        return kl_divergence(first, second, direction.samples, frozen())
