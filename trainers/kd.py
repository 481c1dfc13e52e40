"""Token-level KD: a divergence between student and teacher at every token of the teacher's responses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import Head, Stream, by_chunk, chat_tokenizer, tokenizer_key
from dadpo_bench.models.loading import vocabulary_rows
from dadpo_bench.types import Checkpoint, Example, Job
from trainers.divergences import Kind, between
from trainers.divergences import divergence as divergence
from trainers.loop import LoopMethod, Policy, TrainConfig, response_branching
from trainers.teacher_logits import TeacherLogits
from trainers.teachers import CachedTeacher, ResidentTeacher, Teacher, by_key


class KDConfig(TrainConfig):
    """Settings of token-level KD."""

    divergence: Kind = Field("forward_kl", description="Divergence between teacher and student, nats a token.")
    temperature: float = Field(1.0, gt=0, description="Softens both distributions; no T² factor is applied.")
    beta: float = Field(0.5, gt=0, lt=1, description="Teacher's share in the mixture of `jsd`.")
    alpha: float = Field(0.1, gt=0, lt=1, description="Share of the first distribution in the `skew` mixtures.")
    nll_weight: float = Field(0.0, ge=0, le=1, description="Share of the NLL in the loss, the divergence has the rest.")
    cached_top_k: int = Field(
        0,
        ge=0,
        description="The teacher's likeliest tokens that are kept on disk, 8 bytes each a response token, so that it "
        "need not stay in memory; the others are one tail. 0: it stays, and every token counts.",
    )


class KDObjective:
    """The divergence, and a share of the NLL, at every response token."""

    branching = staticmethod(response_branching)

    def __init__(self, config: KDConfig, job: Job) -> None:
        if job.teacher is None:
            raise WorkError("kd needs the teacher's weights")
        if tokenizer_key(job.teacher) != tokenizer_key(job.start):
            raise UserError(
                "kd needs student and teacher with the same tokenizer; these differ. Use dadpo, which does not."
            )
        self._config = config
        self._between = partial(between, kind=config.divergence, beta=config.beta, alpha=config.alpha)
        self._rows = _shared_rows(job, job.teacher)
        self.teacher = self._find_teacher(job, job.teacher)

    def _find_teacher(self, job: Job, directory: Path) -> Teacher:
        config = self._config
        if not config.cached_top_k:
            return ResidentTeacher(directory, self._rows, config.temperature)
        if job.cache is None:
            raise WorkError("kd with cached_top_k needs a folder for the teacher's logits: the job's `cache`")
        tokenizer = chat_tokenizer(str(job.start), job.chat_template)
        examples = (*job.examples, *job.validation)
        branchings = [self.branching(tokenizer, e, sampled=job.sampled_ids) for e in examples]
        responses = by_key(b for b in branchings if b.tokens <= config.max_tokens)
        if not responses:
            raise WorkError(f"no example of at most {config.max_tokens} tokens: nothing to train on")
        top_k = min(config.cached_top_k, self._rows)
        wanted = TeacherLogits(directory, responses, self._rows, top_k, config.temperature)
        return CachedTeacher(wanted, job.cache, job.start, self._between, job.say)

    def weight(self, examples: Sequence[Example], targets: Sequence[int]) -> int:
        """The loss is a mean over response tokens."""
        return sum(targets)

    def loss(self, policy: Policy, stream: Stream, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Any]]:
        """Summed loss of the micro-batch's response tokens, nats."""
        share, known = self._config.nll_weight, self.teacher.known(stream)

        def read(head: Head, hidden: Tensor, stream: Stream) -> Tensor:
            def of_chunk(states: Tensor, targets: Tensor, *known: Tensor) -> Tensor:
                logits = head.logits(states)[:, : self._rows]
                loss = (1 - share) * self._between(*self.teacher.compare(logits, *known))
                return loss + share * cross_entropy(logits, targets, reduction="none") if share else loss

            return by_chunk(of_chunk, max(1, head.rows // 4), hidden, stream.targets, *known)

        total = policy(stream, read).sum()
        return total, {"divergence": float(total.detach())}


class KDMethod(LoopMethod):
    """KD; what the teacher's cache leaves out is recorded with the checkpoint."""

    def train(self, job: Job) -> Checkpoint:
        """As of `LoopMethod`."""
        objective = KDObjective(KDConfig.model_validate(dict(job.settings)), job)
        checkpoint = LoopMethod(KDConfig, lambda config, job: objective).train(job)
        return checkpoint.model_copy(update={"preflight": {**checkpoint.preflight, **objective.teacher.record}})


def _shared_rows(job: Job, teacher: Path) -> int:
    """Vocabulary rows that student and teacher both have; told where one has more.

    Padded vocabularies differ within a family, and beyond the shared rows there are no tokens: they are cut off
    before the softmax, which spreads what mass the padding had over the tokens.
    """
    rows = [vocabulary_rows(directory) for directory in (job.start, teacher)]
    if rows[0] != rows[1]:
        job.say(
            f"vocabularies of unequal rows: {rows[0]:,} of the student, {rows[1]:,} of the teacher; "
            f"the {min(rows):,} that both have are compared"
        )
    return min(rows)


method = KDMethod(KDConfig, KDObjective)
