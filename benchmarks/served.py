"""What the parity gate of a served teacher sees of a sound server, and what reading its answers takes of this machine.

The embedded model is served on 127.0.0.1 by the tests' own server, in the machine's format and in fp32: the gate's
figures on the model's own greedy responses and on random words, held against the weights in the machine's format. Then
the microseconds a token to read an answer to 16,384 tokens of either protocol: what asking costs beside waiting.

usage: python benchmarks/served.py [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import median_seconds
from workload import branchings_of, random_pairs

sys.path.insert(0, str(Path(__file__).parents[1]))
from dadpo_bench.models import (
    Branching,
    ChatTokenizer,
    Precision,
    chat_tokenizer,
    find,
    frozen,
    load_model,
    respond,
)
from dadpo_bench.models.embedded import NAME
from dadpo_bench.stages.parity import SAMPLE, check_parity
from dadpo_bench.stages.served import ServedModel
from dadpo_bench.stages.served_signals import BATCH_TOKENS, batches_of
from dadpo_bench.tasks import load_task
from dadpo_bench.teacher import Teacher
from dadpo_bench.types import Continuation, Prompt, Sampling
from judges.scoring import from_sglang, from_vllm
from tests.served.teacher_server import MODEL, TeacherServer, teaching

FP32 = Precision(torch.float32, torch.float32)


def continuations(branchings: Sequence[Branching]) -> list[Continuation]:
    """One by one."""
    return [Continuation(b.prompt, ids) for b in branchings for ids in b.continuations]


def own_responses(tokenizer: ChatTokenizer) -> list[Continuation]:
    """The gate's sample: the model's greedy response to a prompt, and its response to the next one."""
    prompts = load_task("assistance", "train", SAMPLE // 2).prompts
    greedy = Sampling(temperature=0, max_new_tokens=64)
    replies = [r.replies[0] for r in respond(load_model(find(NAME), frozen()), tokenizer, prompts, greedy, 0)]
    both = zip(prompts, replies, replies[1:] + replies[:1], strict=True)
    return continuations([tokenizer.branching(p, [own, other], sampled=True) for p, own, other in both])


def asked(server: TeacherServer, protocol: str, weights: str | None = None) -> ServedModel:
    """The server as a recipe has it."""
    given = {"endpoint": server.url, "model": MODEL, "protocol": protocol, "tokenizer": NAME, "weights": weights}
    return ServedModel(Teacher.model_validate(given))


def gate(model: ServedModel, tokenizer: ChatTokenizer, sample: Sequence[Continuation]) -> list[dict[str, Any]]:
    """Its figures, the chat template's left out: that model is only told of ids."""
    few = [Prompt(id="x", turns=("Name three colours.",))]
    return [figures for _, figures in check_parity(model, tokenizer, sample, few) if "mean" in figures]


def vllm_answer(batch: Sequence[Continuation]) -> str:
    """As long as vLLM's, each token's own log-prob by its id."""
    place = {"logprob": -1.2345678901234567, "rank": 123, "decoded_token": " word"}
    choices = [
        {"index": i, "prompt_logprobs": [None, *({str(t): place} for t in [*one.prompt, *one.ids][1:])]}
        for i, one in enumerate(batch)
    ]
    return json.dumps({"choices": choices})


def sglang_answer(batch: Sequence[Continuation]) -> str:
    """As long as SGLang's, from the last token of each prompt on."""
    values = [[[None, one.prompt[-1], None], *([-1.2345678901234567, t, None] for t in one.ids)] for one in batch]
    return json.dumps([{"text": "", "meta_info": {"input_token_logprobs": value}} for value in values])


def reading(read: Callable[[Sequence[Continuation], Any], object], batch: Sequence[Continuation], text: str) -> None:
    """What is done with an answer."""
    read(batch, json.loads(text))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    tokenizer = chat_tokenizer(str(find(NAME)))
    pairs = continuations(branchings_of(random_pairs(40, tokenizer), tokenizer))
    samples = {"own responses": own_responses(tokenizer), "random words": pairs[:SAMPLE]}
    rows: list[dict[str, Any]] = []
    for precision in dict.fromkeys((frozen(), FP32)):
        with teaching(find(NAME), precision) as server:
            for name, sample in samples.items():
                for figures in gate(asked(server, "vllm", NAME), tokenizer, sample):
                    rows.append({**figures, "of": name, "served in": str(precision)})
    (batch, *_) = batches_of(pairs, BATCH_TOKENS)
    tokens = sum(one.tokens for one in batch)
    answers = {"vllm": (from_vllm, vllm_answer(batch)), "sglang": (from_sglang, sglang_answer(batch))}
    ways = {name: partial(reading, read, batch, text) for name, (read, text) in answers.items()}
    costs = {name: 1e6 * taken / tokens for name, taken in median_seconds(ways, arguments.rounds).items()}
    if arguments.json:
        print(json.dumps({"gate": rows, "tokens": tokens, "microseconds a token": costs}, indent=1))
        return
    table = Table(title=f"the gate on a sound server, local weights in {frozen()}")
    for column in ("served in", "of", "held against", "mean, nats a token", "largest"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["served in"], row["of"], row["kind"], f"{row['mean']:.4f}", f"{row['largest']:.3f}")
    console = Console(width=110)
    console.print(table)
    sizes = {name: len(text) / 1e6 for name, (_, text) in answers.items()}
    for name, cost in costs.items():
        console.print(f"{name}: {sizes[name]:.2f} MB for {tokens:,} tokens, read in {cost:.1f} µs a token")


if __name__ == "__main__":
    main()
