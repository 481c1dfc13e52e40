"""What token-level distillation shares: the teacher's side of every response token beside the student's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import Head, Stream, by_chunk, tokenizer_key
from dadpo_bench.models.loading import vocabulary_rows
from dadpo_bench.types import Example, Job
from trainers.step import Policy, response_branching
from trainers.teachers import Teacher


def teacher_of(job: Job) -> Path:
    """The teacher's directory; raises where its tokens are not the student's."""
    if job.teacher is None:
        raise WorkError("token-level distillation needs the teacher's weights")
    if tokenizer_key(job.teacher) != tokenizer_key(job.start):
        raise UserError(
            "token-level distillation needs student and teacher with the same tokenizer; these differ. "
            "Use dadpo, which does not."
        )
    return job.teacher


def shared_rows(job: Job) -> int:
    """Vocabulary rows that student and teacher both have; told where one has more.

    Padded vocabularies differ within a family, and beyond the shared rows there are no tokens: they are cut off
    before the softmax, which spreads what mass the padding had over the tokens.
    """
    rows = [vocabulary_rows(directory) for directory in (job.start, teacher_of(job))]
    if rows[0] != rows[1]:
        job.say(
            f"vocabularies of unequal rows: {rows[0]:,} of the student, {rows[1]:,} of the teacher; "
            f"the {min(rows):,} that both have are compared"
        )
    return min(rows)


class TokenObjective:
    """A loss of every response token, from the student's and the teacher's distribution there, chunk by chunk.

    A method gives `token_losses`; on other responses, or summed up otherwise, also `branching`, `weight`, `total`.
    """

    branching = staticmethod(response_branching)

    def __init__(self, teacher: Teacher, rows: int) -> None:
        self.teacher, self._rows = teacher, rows
        self.record = teacher.record

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over response tokens."""
        return sum(targets)

    def token_losses(self, student: Tensor, teacher: Tensor, logits: Tensor, targets: Tensor, owners: Tensor) -> Tensor:
        """(r, C) log-probs of student and teacher, (r, V) the student's logits, (r,) tokens and continuations →
        (r,) nats."""
        raise NotImplementedError

    def total(self, stream: Stream, losses: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """(R,) losses of all response tokens → their sum, and metrics."""
        total = losses.sum()
        return total, {"divergence": float(total.detach())}

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Any]]:
        """Summed loss of the micro-batch, nats."""
        known = self.teacher.known(stream)

        def read(head: Head, hidden: Tensor, stream: Stream) -> Tensor:
            def of_chunk(states: Tensor, targets: Tensor, owners: Tensor, *known: Tensor) -> Tensor:
                logits = head.logits(states)[:, : self._rows]
                return self.token_losses(*self.teacher.compare(logits, *known), logits, targets, owners)

            return by_chunk(of_chunk, max(1, head.rows // 4), hidden, stream.targets, stream.owners, *known)

        return self.total(stream, policy(stream, read))
