"""What a training leaves on disk: its state while it goes on, the best weights so far, the finished model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list
from safetensors import SafetensorError

from dadpo_bench.errors import WorkError
from dadpo_bench.models import ChatTokenizer, quiet_transformers
from dadpo_bench.types import Job
from trainers.adapters import merged_weights

SAVE_SECONDS = 300.0
"""Seconds between two savings of a training's state."""

SAVE_SHARE = 0.05
"""Of a training's time that saving may take: where it takes long, it is done less often."""


@dataclass
class Progress:
    """How far a training is."""

    step: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_loss: float = float("inf")


class TrainingState:
    """Weights, optimiser, random numbers and progress in a folder, replaced whole so that a kill spoils nothing."""

    def __init__(self, job: Job, accelerator: Accelerator, write: Callable[[Path], None]) -> None:
        self._job, self._accelerator, self._write = job, accelerator, write
        self._folder = job.state
        self._saved, self._took = time.monotonic(), 0.0

    def resume(self) -> Progress:
        """Load what an interrupted training left; else a beginning."""
        steps = self._steps()
        if not steps:
            return Progress()
        folder = self._at(max(steps))
        self._accelerator.load_state(str(folder))
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
        if progress.best_step is not None:
            shutil.copytree(folder / "best", self._job.output, dirs_exist_ok=True)
        self._job.say(f"goes on behind step {progress.step}")
        return progress

    def save(self, progress: Progress) -> None:
        """Save if it is time to; what does not fit on the disk is told once and left out."""
        if self._due():
            self.keep(progress)

    def keep(self, progress: Progress) -> None:
        """Save now, where there is something that is not saved yet; else as `save`."""
        if self._folder is None or progress.step in (0, *self._steps()):
            return
        began, scratch, accelerator = time.monotonic(), self._folder / "partial", self._accelerator
        try:
            if accelerator.is_main_process:
                shutil.rmtree(scratch, ignore_errors=True)
            accelerator.wait_for_everyone()
            with quiet_transformers():  # weights that share one tensor are no news, and load again
                accelerator.save_state(str(scratch))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                (scratch / "progress.json").write_text(json.dumps(asdict(progress)))
                if progress.best_step is not None:
                    shutil.copytree(self._job.output, scratch / "best")
                earlier = self._steps()
                scratch.rename(self._at(progress.step))
                for step in earlier:
                    shutil.rmtree(self._at(step))
        except (OSError, RuntimeError, SafetensorError) as error:  # torch tells of a full disk by a RuntimeError
            if accelerator.num_processes > 1:  # the others may have got further
                raise WorkError(f"cannot save the training's state: {error}") from error
            shutil.rmtree(scratch, ignore_errors=True)
            self._job.say(f"cannot save the training's state ({error}): an interruption would begin it anew")
            self._folder = None
        self._saved, self._took = time.monotonic(), time.monotonic() - began

    def _due(self) -> bool:
        """Whether to save now: the main process's clock decides for all."""
        passed = time.monotonic() - self._saved
        due = [self._folder is not None and passed >= max(SAVE_SECONDS, self._took / SAVE_SHARE)]
        return bool(broadcast_object_list(due)[0])

    def offer(self, progress: Progress, loss: float) -> None:
        """Keep the present weights where their validation loss is the lowest so far."""
        if loss < progress.best_loss:
            progress.best_step, progress.best_loss = progress.step, loss
            self._finished()

    def finish(self, progress: Progress) -> None:
        """Leave the chosen weights in the job's output: the best where they were kept, else the last."""
        if progress.best_step is None:
            self._finished()

    def _finished(self) -> None:
        self._write(self._job.output)

    def _at(self, step: int) -> Path:
        assert self._folder is not None
        return self._folder / f"step-{step}"

    def _steps(self) -> list[int]:
        found = [] if self._folder is None else self._folder.glob("step-*")
        return [int(path.name.removeprefix("step-")) for path in found]


def save_model(
    accelerator: Accelerator, policy: Any, tokenizer: ChatTokenizer, output: Path, adapters: Any = None
) -> None:
    """Write an ordinary Hugging Face directory, adapters merged; shards are gathered from every process."""
    weights = merged_weights(adapters.get_base_model()) if adapters is not None else None
    if accelerator.distributed_type is DistributedType.FSDP:
        weights = {name.removeprefix("model."): value for name, value in accelerator.get_state_dict(policy).items()}
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            accelerator.unwrap_model(policy).model.save_pretrained(output, state_dict=weights)
            if adapters is not None:
                adapters.save_pretrained(output / "adapters")
                (output / "adapters" / "README.md").unlink(missing_ok=True)  # peft's empty form of a card
        tokenizer.raw.save_pretrained(output)
    accelerator.wait_for_everyone()
