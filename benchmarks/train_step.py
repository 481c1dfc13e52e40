"""Times training steps by turns in one run, against limit A and against TRL, and takes each one's peak memory.

A step is forward and backward, the optimiser outside, weights in the machine's own compute format on both sides; where
that is bf16, a step with fp32 master weights stands beside. All compute the same pairs of random words, in one pass
(the trainers cut large batches into micro-batches, for less memory).

Limit A is what no step is expected to beat: a plain `model(input_ids, labels).loss.backward()` of as many tokens as
the pairs have, each counted once, in eight rows without padding. TRL is its `DPOTrainer` with the reference's log-probs
precomputed. KD's teacher is the same model as its student; KD and SFT compute the chosen responses alone. Peak memory
is that of a process which holds one contender, and how far that grew since its models were loaded: the script runs
itself once for each.

usage: python benchmarks/train_step.py [--batch PAIRS] [--steps N] [--no-peer] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from memory import in_own_process
from rich.console import Console
from rich.table import Table
from timing import rounds_of_seconds
from workload import branchings_of, plain_rows, random_pairs

from dadpo_bench.models import (
    Precision,
    Stream,
    chat_tokenizer,
    device,
    find,
    frozen,
    load_model,
    longest_sequence,
    quiet_transformers,
    streaming,
    training,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.models.memory import peak_bytes, resident_bytes
from dadpo_bench.types import Example, Job
from trainers import dadpo, dpo
from trainers.kd import KDConfig, KDObjective
from trainers.preference import PreferenceObjective
from trainers.sft import SFTObjective
from trainers.step import Objective, PolicyModel

DADPO, MASTERS, DPO, SFT, KD = "daDPO", "daDPO, fp32 masters", "DPO", "SFT", "KD"
LIMIT, PEER = "limit A", "TRL's DPO"


class Contender(NamedTuple):
    """Tokens that its step computes, padding and repeated prompts among them, and the step."""

    tokens: int
    step: Callable[[], None]


def makers(batch: int) -> dict[str, Callable[[], Contender]]:
    """How each contender is made: what it needs is loaded then, so that a process can hold one contender alone."""
    examples = random_pairs(batch, chat_tokenizer(str(find(NAME))))
    made = {name: partial(our_step, make, examples, frozen()) for name, make in objectives().items()}
    if training() != frozen():
        made[MASTERS] = partial(our_step, objectives()[DADPO], examples, training())
    return {**made, LIMIT: partial(limit_step, examples), PEER: partial(peer_step, examples)}


def objectives() -> dict[str, Callable[[], Objective]]:
    """How ours are made; KD's holds its teacher."""
    job = Job(find(NAME), Path(), [], {}, seed=0, teacher=find(NAME))
    return {
        DADPO: lambda: PreferenceObjective(dadpo.DaDPOConfig(), dadpo._loss, ("reference", "teacher")),
        DPO: lambda: PreferenceObjective(dpo.DPOConfig(), dpo._loss, ("reference",)),
        SFT: SFTObjective,
        KD: lambda: KDObjective(KDConfig(), job),
    }


@cache
def model_in(precision: Precision) -> Any:
    """The model that is trained."""
    return load_model(find(NAME), precision).train()


def our_step(make: Callable[[], Objective], examples: Sequence[Example], precision: Precision) -> Contender:
    """A step of our trainers."""
    model, objective, tokenizer = model_in(precision), make(), chat_tokenizer(str(find(NAME)))
    policy = PolicyModel(model, precision)
    branchings = [objective.branching(tokenizer, e, sampled=False) for e in examples]
    longest = longest_sequence(branchings)

    def step() -> None:
        stream = Stream.pack(branchings, device())  # masks and all: the next batch of a training has other ones
        with streaming(model, longest):
            loss, _ = objective.loss(policy, stream, examples)
            loss.backward()
        model.zero_grad()

    return Contender(sum(b.tokens for b in branchings), step)


def limit_step(examples: Sequence[Example]) -> Contender:
    """Forward and backward pass of as many tokens as the pairs have, through the model's own forward."""
    model = model_in(frozen())
    ids = plain_rows(sum(b.tokens for b in branchings_of(examples, chat_tokenizer(str(find(NAME))))))

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()

    return Contender(ids.numel(), step)


def peer_step(examples: Sequence[Example]) -> Contender:
    """TRL's step, on a model of its own: the trainer changes the one it is given."""
    trainer = peer_trainer(examples)
    (batch,) = trainer.get_train_dataloader()

    def step() -> None:
        trainer.compute_loss(trainer.model, batch).backward()
        trainer.model.zero_grad()

    return Contender(batch["input_ids"].numel(), step)


def peer_trainer(examples: Sequence[Example]) -> Any:
    """TRL's `DPOTrainer` of all pairs as one batch."""
    import trl
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoTokenizer

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    rows = [
        {
            "prompt": [m.model_dump() for m in e.prompt.messages()],
            "chosen": said(e.chosen.text),
            "rejected": said(e.rejected.text),
        }
        for e in examples
        if e.rejected is not None
    ]
    disable_progress_bars()
    # Its own bars and its warnings about transformers would stand between ours.
    with TemporaryDirectory() as folder, quiet_transformers(), redirect_stderr(io.StringIO()):
        config = trl.DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=len(rows),
            max_length=2048,
            precompute_ref_log_probs=True,
            gradient_checkpointing=False,
            bf16=False,  # no autocast: the weights have the format already
            use_cpu=device().type == "cpu",
            report_to=[],
            disable_tqdm=True,
        )
        return trl.DPOTrainer(
            load_model(find(NAME), frozen()),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(find(NAME)),
        )


class Memory(NamedTuple):
    """Bytes of a process that holds one contender: at most, and of these, since its models were loaded."""

    peak: int
    growth: int


def own_memory(make: Callable[[], Contender], steps: int) -> Memory:
    """Of this process, which must hold nothing else; a second step finds what the first left."""
    step = make().step
    loaded = resident_bytes()
    for _ in range(steps):
        step()
    return Memory(peak_bytes(), peak_bytes() - loaded)


class Figures(NamedTuple):
    """What was measured, by contender."""

    tokens: dict[str, int]
    rounds: dict[str, list[float]]
    """Seconds, by round."""
    memory: dict[str, Memory]

    @property
    def seconds(self) -> dict[str, float]:
        """Medians."""
        return {name: median(taken) for name, taken in self.rounds.items()}

    def ratio(self, name: str, other: str) -> float:
        """Median over rounds of its time by the other's in the same round."""
        return median(a / b for a, b in zip(self.rounds[name], self.rounds[other], strict=True))

    def of_limit(self, name: str) -> float:
        """Its time in multiples of limit A's."""
        return self.ratio(name, LIMIT)

    def of_peer(self, name: str) -> tuple[float, float] | None:
        """TRL's time in multiples of its own, and its peak as a share of TRL's, where TRL was measured."""
        if PEER not in self.rounds:
            return None
        return self.ratio(PEER, name), self.memory[name].peak / self.memory[PEER].peak


def measure(batch: int, steps: int, peer: bool) -> Figures:
    """All contenders: first the memory of each, while this process itself holds no model, then time, by turns."""
    made = {name: make for name, make in makers(batch).items() if peer or name != PEER}
    sizes = ("--batch", str(batch), "--steps", str(steps))
    memory = {name: Memory(*in_own_process(__file__, "--only", name, *sizes)) for name in made}
    contenders = {name: make() for name, make in made.items()}
    rounds = rounds_of_seconds({name: c.step for name, c in contenders.items()}, steps)
    return Figures({name: c.tokens for name, c in contenders.items()}, rounds, memory)


class Requirement(NamedTuple):
    """A figure that must not be above its bound, or not below it."""

    text: str
    figure: float
    bound: float
    at_most: bool = True
    target: float | None = None

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    def __str__(self) -> str:
        sign, mark = "≤" if self.at_most else "≥", "[green]ok[/]" if self.met else "[red]NOT MET[/]"
        target = "" if self.target is None else f" (target {self.target})"
        return f"{self.text} {sign} {self.bound}{target}: {self.figure:.2f} {mark}"


def requirements(figures: Figures) -> list[Requirement]:
    """What is asked of daDPO's step; against TRL only where that was measured."""
    own, off_dpo = figures.of_limit(DADPO), abs(figures.ratio(DADPO, DPO) - 1)
    asked = [
        Requirement("daDPO's time / limit A's", own, 1.1, target=1.0),
        Requirement("daDPO's time off DPO's, per cent", 100 * off_dpo, 2),
    ]
    if against := figures.of_peer(DADPO):
        faster, peak = against
        if frozen().compute == torch.bfloat16:
            asked.append(Requirement("TRL's time / daDPO's", faster, 4.5, at_most=False, target=5))
        else:
            asked.append(Requirement("TRL's time / daDPO's, as a share of limit A's", 1 / own, 0.9, at_most=False))
        asked.append(Requirement("daDPO's peak memory / TRL's", peak, 0.35, target=0.3))
    return asked


def as_json(figures: Figures, batch: int) -> str:
    """Everything, for machines."""

    def row(name: str) -> dict[str, Any]:
        faster, peak = figures.of_peer(name) or (None, None)
        return {
            "tokens": figures.tokens[name],
            "seconds": figures.seconds[name],
            "of_limit_a": figures.of_limit(name),
            "peer_over_step": faster,
            "peak_bytes": figures.memory[name].peak,
            "growth_bytes": figures.memory[name].growth,
            "of_peers_peak": peak,
        }

    packages = ("torch", "transformers", *(["trl"] if PEER in figures.seconds else []))
    return json.dumps(
        {
            "batch": batch,
            "precision": str(frozen()),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in packages},
            "steps": {name: row(name) for name in figures.seconds},
            "requirements": [{**asked._asdict(), "met": asked.met} for asked in requirements(figures)],
        }
    )


def show(figures: Figures, batch: int) -> None:
    """The table, and under it what is required."""
    columns = ("tokens", "s", "× A", "TRL / step", "peak GB", "of TRL's", "grown GB")
    table = Table("step", title=f"{batch} pairs, {frozen()}, {torch.get_num_threads()} threads")
    for column in columns:
        table.add_column(column, justify="right")
    for name, seconds in figures.seconds.items():
        memory, against = figures.memory[name], figures.of_peer(name)
        faster, peak = (f"{value:.2f}" for value in against) if against else ("", "")
        table.add_row(
            name,
            str(figures.tokens[name]),
            f"{seconds:.2f}",
            f"{figures.of_limit(name):.2f}",
            faster,
            f"{memory.peak / 1e9:.2f}",
            peak,
            f"{memory.growth / 1e9:.2f}",
        )
    console = Console()
    console.print(table)
    for asked in requirements(figures):
        console.print(str(asked), highlight=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # In fp32 TRL needs 21 GB for eight pairs, and a minute for four.
    pairs, steps = (8, 3) if frozen().compute == torch.bfloat16 else (4, 1)
    parser.add_argument("--batch", type=int, default=pairs, help=f"pairs a step (here {pairs})")
    parser.add_argument(
        "--steps", type=int, default=steps, help=f"steps of each contender, timed and for memory (here {steps})"
    )
    parser.add_argument("--no-peer", action="store_true", help="leave TRL out, which takes most of time and memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # what this script runs itself with
    options = parser.parse_args()
    if options.only:
        print(json.dumps(own_memory(makers(options.batch)[options.only], options.steps)))
        return
    installed = find_spec("trl") is not None
    if not installed and not options.no_peer:
        print("TRL is left out; it is installed by: pip install 'dadpo-bench[peers]'", file=sys.stderr)
    figures = measure(options.batch, options.steps, installed and not options.no_peer)
    if options.json:
        print(as_json(figures, options.batch))
    else:
        show(figures, options.batch)


if __name__ == "__main__":
    main()
