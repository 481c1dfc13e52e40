"""The judge-free columns of local models: KL from and to the teacher on samples drawn for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dadpo_bench.models import Branching, chat_tokenizer, frozen, load_model, tokenizer_key
from dadpo_bench.models.divergence import Total, kl_divergence
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import Stored, collect_responses
from dadpo_bench.store import insert_missing, schema
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
    samples: tuple[tuple[Branching, Branching], ...]
    reverse: bool


def divergences(
    bench: Bench, model: LocalModel, teacher: LocalModel, prompts: Sequence[Prompt], limit: int, label: str
) -> Kl | None:
    """Both divergences on samples at temperature 1, top-p 1, of each prompt's first turn.

    None where the two models' tokenizers differ: there is no shared vocabulary to sum over.
    """
    if not prompts or tokenizer_key(model.directory) != tokenizer_key(teacher.directory):
        return None
    first = [Prompt(id=p.id, turns=p.turns[:1], category=p.category, system=p.system) for p in prompts]
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=limit)
    directions = []
    for speaker, reverse in ((teacher, False), (model, True)):
        drawn = collect_responses(bench, speaker, first, sampling, 0, f"{label}: samples of {speaker.name}")
        directions.append(_direction(model, teacher, drawn, reverse))
    with bench.store.read() as session:
        known = {d.key: row for d in directions if (row := session.get(schema.Divergence, d.key))}
    totals = {key: Total(row.nats, row.tokens) for key, row in known.items()}

    def make() -> _Measure:
        return _Measure(model, teacher)

    owed = [d for d in directions if d.key not in totals]
    with bench.reporter.bar(f"{label}: KL", len(owed), "directions") as bar:
        for direction, total in bench.engine.map(make, owed, _named):
            with bench.store.write() as session:
                fresh = {"key": direction.key, "nats": total.nats, "tokens": total.tokens}
                insert_missing(session, schema.Divergence, [fresh])
            totals[direction.key] = total
            bar.advance(1, bench.engine.workers)
    rates = [totals[d.key].nats / totals[d.key].tokens for d in directions]
    return Kl(from_teacher=rates[0], to_teacher=rates[1])


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
    return _Direction(key, samples, reverse)


def _named(direction: _Direction) -> str:
    return "KL to the teacher" if direction.reverse else "KL from the teacher"


class _Measure:
    def __init__(self, model: LocalModel, teacher: LocalModel) -> None:
        self._model = load_model(model.directory, frozen())
        self._teacher = load_model(teacher.directory, frozen())

    def __call__(self, direction: _Direction) -> Total:
        pair = (self._model, self._teacher) if direction.reverse else (self._teacher, self._model)
        return kl_divergence(*pair, direction.samples, frozen())
