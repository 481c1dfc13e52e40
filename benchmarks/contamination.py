"""Seconds to hold 1,000 held-out prompts against 50,000 training prompts.

Prompts of 5 to some 500 words (median 55), drawn by Zipf's law from 20,000 words; one in a hundred held-out ones is a
training prompt with a word added.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time

from dadpo_bench.contamination import KINDS, overlap
from dadpo_bench.types import Prompt


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--heldout", type=int, default=1_000)
    options = parser.parse_args()
    rng = random.Random(0)
    words = [f"w{i}" for i in range(20_000)]
    weights = list(itertools.accumulate(1 / (i + 1) for i in range(len(words))))

    def drawn(count: int) -> list[str]:
        lengths = [max(5, int(rng.lognormvariate(4, 0.8))) for _ in range(count)]
        return [" ".join(rng.choices(words, cum_weights=weights, k=length)) for length in lengths]

    train, heldout = drawn(options.train), drawn(options.heldout)
    heldout[::100] = [f"{text} please" for text in train[: len(heldout[::100])]]
    sets = [[Prompt(id=str(i), turns=(text,)) for i, text in enumerate(texts)] for texts in (train, heldout)]
    began, worked = time.perf_counter(), time.process_time()
    found = overlap(*sets)
    seconds, busy = time.perf_counter() - began, time.process_time() - worked
    told = ", ".join(f"{kind} {found.count(kind)}" for kind in KINDS)
    print(f"{options.train:,} × {options.heldout:,} prompts: {busy:.1f} s of one core in {seconds:.1f} s; {told}")


if __name__ == "__main__":
    main()
