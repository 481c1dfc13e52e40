"""Token-level KD: a divergence between student and teacher at every token of the teacher's responses."""

from __future__ import annotations

from functools import partial

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from dadpo_bench.errors import WorkError
from dadpo_bench.models import chat_tokenizer
from dadpo_bench.types import Job
from trainers.config import TrainConfig
from trainers.distillation import TokenObjective, shared_rows, teacher_of
from trainers.divergences import Kind, between
from trainers.divergences import divergence as divergence
from trainers.loop import LoopMethod
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


class KDObjective(TokenObjective):
    """The divergence, and a share of the NLL, at every response token."""

    def __init__(self, config: KDConfig, job: Job) -> None:
        self._share = config.nll_weight
        self._between = partial(between, kind=config.divergence, beta=config.beta, alpha=config.alpha)
        rows = shared_rows(job)
        super().__init__(self._find_teacher(config, job, rows), rows)

    def _find_teacher(self, config: KDConfig, job: Job, rows: int) -> Teacher:
        if not config.cached_top_k:
            return ResidentTeacher(teacher_of(job), rows, config.temperature)
        if job.cache is None:
            raise WorkError("kd with cached_top_k needs a folder for the teacher's logits: the job's `cache`")
        tokenizer = chat_tokenizer(str(job.start), job.chat_template)
        examples = (*job.examples, *job.validation)
        branchings = [self.branching(tokenizer, e, sampled=job.sampled_ids) for e in examples]
        responses = by_key(b for b in branchings if b.tokens <= config.max_tokens)
        if not responses:
            raise WorkError(f"no example of at most {config.max_tokens} tokens: nothing to train on")
        wanted = TeacherLogits(teacher_of(job), responses, rows, min(config.cached_top_k, rows), config.temperature)
        return CachedTeacher(wanted, job.cache, job.start, self._between, job.say)

    def token_losses(self, student: Tensor, teacher: Tensor, logits: Tensor, targets: Tensor, owners: Tensor) -> Tensor:
        """As of `TokenObjective`."""
        loss: Tensor = (1 - self._share) * self._between(student, teacher)
        return loss + self._share * cross_entropy(logits, targets, reduction="none") if self._share else loss


method = LoopMethod(KDConfig, KDObjective)
