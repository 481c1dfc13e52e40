"""The teacher's side of a divergence, micro-batch by micro-batch: from the teacher in memory, or from the disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import PartialState
from torch import Tensor

from dadpo_bench.models import Branching, Head, Stream, device, frozen, hidden_states, load_model, streaming, training
from dadpo_bench.models.memory import release_memory
from dadpo_bench.types import content_key
from trainers.divergences import buckets
from trainers.teacher_logits import TeacherLogits

Between = Callable[[Tensor, Tensor], Tensor]
"""(T, C) log-probs of student and teacher → (T,) divergence, nats."""


class Teacher(Protocol):
    """What an objective knows of its teacher."""

    record: Mapping[str, Any]
    """Figures to keep with the checkpoint."""

    def known(self, stream: Stream) -> tuple[Tensor, ...]:
        """What `compare` needs of the stream's R targets: tensors of R rows each, to be cut into chunks."""
        ...

    def compare(self, logits: Tensor, *known: Tensor) -> tuple[Tensor, Tensor]:
        """(r, V) student logits, and r rows of what is known → (r, C) log-probs of student and teacher."""
        ...


class ResidentTeacher:
    """In memory beside the student, compared over the whole vocabulary."""

    def __init__(self, directory: Path, rows: int, temperature: float) -> None:
        self._model = load_model(directory, frozen())
        self._head = Head(self._model)
        self._rows, self._temperature = rows, temperature
        self.record: Mapping[str, Any] = {}

    @torch.no_grad()
    def known(self, stream: Stream) -> tuple[Tensor, ...]:
        """(R, H) hidden states; logits of a whole micro-batch would be too many."""
        with streaming(self._model, stream.longest):
            return (hidden_states(self._model, stream),)

    def compare(self, logits: Tensor, *known: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Teacher`; C = V."""
        with torch.no_grad():
            own = (self._head.logits(*known)[:, : self._rows] / self._temperature).log_softmax(-1)
        return (logits / self._temperature).log_softmax(-1), own


class CachedTeacher:
    """On disk, compared over its likeliest tokens and one tail: a lower bound, whose gap is measured and recorded."""

    def __init__(
        self, wanted: TeacherLogits, folder: Path, start: Path, between: Between, say: Callable[[str], None]
    ) -> None:
        with PartialState(cpu=device().type == "cpu").main_process_first():
            tensors = wanted.opened(folder, say)
        self._tables = tensors["ids"], tensors["log_probs"]
        self._places = dict(zip(wanted.responses, itertools.pairwise(tensors["offsets"].tolist()), strict=True))
        self._temperature = wanted.temperature
        student = wanted.some_logits(load_model(start, training()), training())
        release_memory()
        teacher = tensors["full"].to(student.device)
        top = teacher.topk(wanted.top_k).indices
        full = float(between(student.log_softmax(-1), teacher.log_softmax(-1)).mean())
        cached = float(between(buckets(student, top), buckets(teacher, top)).mean())
        mass = float(tensors["tail_mass"])
        self.record: Mapping[str, Any] = {
            "teacher_tail_mass": mass,
            "full_divergence": full,
            "cached_divergence": cached,
            "divergence_tokens": len(teacher),
        }
        say(
            f"beyond the teacher's top {wanted.top_k}: {100 * mass:.2g} % of its mass; at the start, on {len(teacher)} "
            f"tokens, the divergence is {full:.4f} nats a token, cached {cached:.4f}, {full - cached:.2g} less"
        )

    def known(self, stream: Stream) -> tuple[Tensor, ...]:
        """(R, k) token ids and (R, k+1) log-probs."""
        places = [slice(*self._places[key]) for key in _keys(stream)]
        return tuple(torch.cat([table[place] for place in places]).to(stream.targets.device) for table in self._tables)

    def compare(self, logits: Tensor, *known: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Teacher`; C = k+1."""
        ids, log_probs = known
        return buckets(logits / self._temperature, ids.long()), log_probs


def by_key(branchings: Iterable[Branching]) -> dict[str, Branching]:
    """Every continuation behind its prompt, once, in the order of the keys."""
    found = {content_key(b.prompt, y): Branching(b.prompt, [y]) for b in branchings for y in b.continuations}
    return dict(sorted(found.items()))


def _keys(stream: Stream) -> Iterable[str]:
    """The keys of the stream's continuations, as `by_key` makes them."""
    ids = stream.input_ids[0].tolist()
    for start, fork, ends in stream.layout.segments:
        for begin, end in itertools.pairwise((fork, *ends)):
            yield content_key(ids[start:fork], ids[begin:end])
