"""Times a board of a million stored verdicts, and the peers' way of its bootstrap: data frames resampled row by row.

50 contestants and a baseline on 10,000 prompts, both orders: a store is made, then a process of its own reads it and
makes the finished board (win rates, Bradley–Terry, paired tests; 10,000 bootstrap rounds, 10,000 sign flips a pair;
no length control). Peak memory is that process's.

usage: python benchmarks/scoring.py [--contestants 50] [--prompts 10000] [--growth] [--no-peer] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from dadpo_bench.exchange.stored import judge_key
from dadpo_bench.open_board import open_protocol
from dadpo_bench.store import open_store, save_task, schema
from dadpo_bench.store.rows import chunks, contestant_row
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt

REQUIRED_SECONDS, REQUIRED_GB = 15.0, 1.5
TEXT = "word " * 40
JUDGE = {"imported": "benchmark"}


def fill(path: Path, contestants: int, prompts: int) -> int:
    """Make the store; returns its verdicts."""
    rng = np.random.default_rng(0)
    asked = tuple(Prompt(id=str(i), turns=(f"question {i}",)) for i in range(prompts))
    task = Task(name="synthetic", domain="out", split="heldout", prompts=asked)
    protocol = open_protocol("synthetic", "baseline")
    judge = judge_key("imported", JUDGE)
    difficulty = rng.normal(0, 1, prompts)
    names = ["baseline", *(f"contestant-{k:02d}" for k in range(contestants))]
    with closing(open_store(str(path))) as store, store.write() as session:
        save_task(session, task)
        session.execute(insert(schema.Protocol), [protocol])
        row = {"key": judge, "name": "synthetic", "kind": "pairwise", "proxy": False, "identity": JUDGE}
        session.execute(insert(schema.Judge), [row])
        keys, task_key = [prompt.key for prompt in asked], task.key
        for place, name in enumerate(names):
            kind = "baseline" if name == "baseline" else "entrant"
            contestant = contestant_row(protocol["key"], name, kind, None, {}, f"model{place}")
            session.execute(insert(schema.Contestant), [contestant])
            lengths = rng.integers(100, 300, prompts)
            for chunk in chunks(list(enumerate(keys)), 5_000):
                session.execute(insert(schema.Response), [response(place, p, key, lengths[p]) for p, key in chunk])
                answers = [answer(contestant["key"], task_key, place, p, key) for p, key in chunk]
                session.execute(insert(schema.Answer), answers)
            if place == 0:
                continue
            wins = rng.random((2, prompts)) < 1 / (1 + np.exp(-(difficulty + rng.normal(0, 0.7))))
            for order, won in zip(("ab", "ba"), wins, strict=True):
                for chunk in chunks(list(enumerate(won.tolist())), 5_000):
                    session.execute(insert(schema.Verdict), [verdict(judge, place, p, order, w) for p, w in chunk])
        score = {"protocol_key": protocol["key"], "judge_key": judge, "task_key": task_key}
        session.execute(insert(schema.Score), [{**score, "baseline": "-", "contestant": "-", "values": {}}])
    return 2 * contestants * prompts


def response(place: int, prompt: int, key: str, length: int) -> dict[str, Any]:
    replies = [{"text": TEXT, "token_ids": [], "finish": "stop"}]
    looks = {"characters": int(length), "grams": 37, "repeated": 36, "cut": False}
    who = {"key": f"{place:03d}/{prompt:06d}", "batch_key": "b", "model_key": f"model{place}", "prompt_key": key}
    return {**who, "sampling": {}, "replies": replies, **looks}


def answer(contestant: str, task: str, place: int, prompt: int, key: str) -> dict[str, Any]:
    ours = {"contestant_key": contestant, "task_key": task, "prompt_key": key}
    return {**ours, "response_key": f"{place:03d}/{prompt:06d}"}


def verdict(judge: str, place: int, prompt: int, order: str, won: bool) -> dict[str, Any]:
    pair = {"contestant_response": f"{place:03d}/{prompt:06d}", "baseline_response": f"000/{prompt:06d}"}
    said = {"judge_key": judge, **pair, "order": order, "outcome": "win" if won else "loss", "preference": None}
    return {**said, "asked": datetime(2026, 1, 1, tzinfo=UTC), "reason": "", "raw": "[[A]] because", "seconds": 0.5}


def board(path: str) -> None:
    """In a process of its own: the board, its seconds by part and its peak memory, as JSON."""
    from dadpo_bench import panels
    from dadpo_bench.leaderboard import View, render

    began = time.perf_counter()
    with closing(open_store(path, create=False)) as store:
        with store.read() as session:
            row = session.query(schema.Score).first()
            assert row is not None
            panels.panels(session, row.protocol_key, row.judge_key)
        read = time.perf_counter()
        text = render(store, View(fit_lengths=False))
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    # What is read is read again by the board: only that counts.
    print(json.dumps({"seconds": done - read, "reading": read - began, "peak_gb": peak, "lines": text.count("\n")}))


def peer(contestants: int, prompts: int, draws: int) -> float:
    """Seconds of one data-frame bootstrap of win rates, `draws` rounds scaled from a few: sample, group, mean."""
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "model": np.repeat(np.arange(contestants), 2 * prompts),
            "score": (rng.random(2 * contestants * prompts) < 0.4).astype(float),
        }
    )
    few = 3
    began = time.perf_counter()
    for seed in range(few):
        frame.sample(frac=1.0, replace=True, random_state=seed).groupby("model").mean()
    return (time.perf_counter() - began) / few * draws


def measured(contestants: int, prompts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.sqlite3"
        verdicts = fill(path, contestants, prompts)
        script = [sys.executable, __file__, "--board", str(path)]
        done = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True)
        return {"contestants": contestants, "prompts": prompts, "verdicts": verdicts, **json.loads(done.stdout)}


def sizes(contestants: int, prompts: int, growth: bool) -> Iterator[tuple[int, int]]:
    if growth:
        yield from ((contestants, prompts // part) for part in (8, 4, 2))
    yield contestants, prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestants", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--growth", action="store_true", help="an eighth, a quarter and a half of the prompts too")
    parser.add_argument("--no-peer", action="store_true", help="leave out the data frames")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--board", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.board:
        board(args.board)
        return
    rows = [measured(*size) for size in sizes(args.contestants, args.prompts, args.growth)]
    others = None if args.no_peer else peer(args.contestants, args.prompts, 10_000)
    if args.json:
        print(json.dumps({"boards": rows, "peer_seconds_of_10000_draws": others}, indent=1))
        return
    table = Table(title="a finished board, read from its store")
    for name in ("contestants", "prompts", "verdicts", "s", "of it reading", "µs a verdict", "peak GB"):
        table.add_column(name, justify="right")
    for r in rows:
        cost = 1e6 * r["seconds"] / r["verdicts"]
        figures = (f"{r['seconds']:.1f}", f"{r['reading']:.1f}", f"{cost:.1f}", f"{r['peak_gb']:.2f}")
        table.add_row(str(r["contestants"]), f"{r['prompts']:,}", f"{r['verdicts']:,}", *figures)
    console = Console()
    console.print(table)
    console.print(f"required: under {REQUIRED_SECONDS:g} s and {REQUIRED_GB:g} GB of the last row, on two cores")
    if others is not None:
        console.print(f"10,000 rounds of the win rates alone by data frames (three measured): {others:,.0f} s")


if __name__ == "__main__":
    main()
