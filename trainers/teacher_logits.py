"""A cache of teacher logits on disk: for each response token the k likeliest tokens, and all others as one tail.

One file a set of examples, named by the key of all that decides it: another seed or setting over the same examples
reuses it, another teacher cannot.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dadpo_bench import models
from dadpo_bench.errors import WorkError
from dadpo_bench.models import Branching, Head, Precision, Stream, device, frozen
from dadpo_bench.models.logprobs import SCORING_TOKENS
from dadpo_bench.models.memory import release_memory
from dadpo_bench.types import content_key
from trainers import sealed
from trainers.divergences import buckets

LAYOUT_VERSION = 1
"""Part of every file's key: raise it when a file holds something else."""

FULL_RESPONSES, FULL_TOKENS = 8, 128
"""Tokens, spread over some responses, whose logits are kept whole: they measure what the cut costs a student."""

PROGRESS_SECONDS = 30.0


@dataclass(frozen=True)
class TeacherLogits:
    """What decides a file. Of N tokens it holds `ids` (N, k) int32 and `log_probs` (N, k+1) fp32, the tail's last;
    `offsets` (responses + 1,), each response's first token; `full` (S, rows) logits; `tail_mass`, the tail's mean.

    fp16 would save a quarter and move the KL by 3e-4 nats a token (benchmarks/teacher_logits.py): no bound any more.
    """

    teacher: Path
    responses: Mapping[str, Branching]
    """One continuation each, by the key of its token ids, in the order of the keys."""
    rows: int
    """Vocabulary rows shared with the student."""
    top_k: int
    temperature: float
    """Softens before the cut: a tail cannot be softened afterwards."""

    def opened(self, folder: Path, say: Callable[[str], None]) -> dict[str, Tensor]:
        """The file's tensors; it is made first where there is none, or a damaged one."""
        decisive = (models.weights_key(self.teacher), list(self.responses), self.rows, self.top_k, self.temperature)
        key = content_key("teacher-logits", LAYOUT_VERSION, models.SCORER_VERSION, str(frozen()), *decisive)
        path = folder / f"{key}.safetensors"
        tensors = sealed.read(path)
        if tensors is None:
            self._check_space(folder, say)
            sealed.write(self._fill(say), path)
            release_memory()
            tensors = sealed.read(path)
            if tensors is None:
                raise WorkError(f"{path} does not read back as it was written: look at the disk")
        return tensors

    def some_logits(self, model: Any, precision: Precision) -> Tensor:
        """(S, rows) softened logits at tokens spread over the first responses: any ones, as their keys are hashes."""
        stream = Stream.pack(list(self.responses.values())[:FULL_RESPONSES], device())
        with torch.no_grad(), precision.autocast(), models.streaming(model, stream.longest):
            hidden = models.hidden_states(model, stream)
            spread = torch.linspace(0, len(hidden) - 1, min(len(hidden), FULL_TOKENS)).long()
            return Head(model).logits(hidden[spread])[:, : self.rows] / self.temperature

    def _check_space(self, folder: Path, say: Callable[[str], None]) -> None:
        tokens = self._tokens()
        needed = tokens * (8 * self.top_k + 4)
        full = 4 * self.rows * min(tokens, FULL_TOKENS)
        say(
            f"teacher's top-{self.top_k} logits of {tokens:,} tokens: {needed / 1e6:,.1f} MB on disk, "
            f"and {full / 1e6:,.1f} MB to measure their error by"
        )
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed + full:
            raise WorkError(f"{folder} has {free / 1e6:,.1f} MB left: free some, lower cached_top_k, or set it to 0")

    @torch.no_grad()
    def _fill(self, say: Callable[[str], None]) -> dict[str, Tensor]:
        tokens, told = self._tokens(), time.monotonic()
        ids = torch.empty(tokens, self.top_k, dtype=torch.int32)
        log_probs = torch.empty(tokens, self.top_k + 1)
        model, responses = models.load_model(self.teacher, frozen()), list(self.responses.values())
        head, done = Head(model), 0
        with models.streaming(model, models.longest_sequence(responses)):
            for batch in models.batches_by_tokens(responses, SCORING_TOKENS):
                hidden = models.hidden_states(model, Stream.pack([responses[i] for i in batch], device()))
                for states in torch.split(hidden, max(1, head.rows // 4)):
                    logits = head.logits(states)[:, : self.rows] / self.temperature
                    top = logits.topk(self.top_k).indices
                    place = slice(done, done + len(states))
                    ids[place], log_probs[place] = top, buckets(logits, top)
                    done += len(states)
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    say(f"teacher's logits: {done:,} of {tokens:,} tokens")
        return {
            "ids": ids,
            "log_probs": log_probs,
            "offsets": torch.tensor([0, *(len(r.continuations[0]) for r in responses)]).cumsum(0),
            "full": self.some_logits(model, frozen()).cpu(),
            "tail_mass": log_probs[:, -1].exp().mean(),
        }

    def _tokens(self) -> int:
        return sum(len(r.continuations[0]) for r in self.responses.values())
