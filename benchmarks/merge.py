"""Times the merge of a store of a million verdicts: into an empty one, and once more, where nothing is new.

The store is the one of `scoring.py`, 50 contestants and a baseline on 10,000 prompts in both orders, without a scored
board, so that rows alone are timed. Each merge is a process of its own; peak memory is that process's.

usage: python -m benchmarks.merge [--contestants 50] [--prompts 10000] [--into URL] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import delete

from benchmarks.scoring import fill
from dadpo_bench.merging import merge
from dadpo_bench.store import open_store, schema


def timed(source: str, into: str) -> None:
    """In a process of its own: seconds, rows by what became of them, and peak memory, as JSON."""
    began = time.perf_counter()
    counts = merge([source], into).counts
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    told = {"seconds": seconds, "processor": time.process_time(), "peak_gb": peak}
    print(json.dumps({**told, "new": counts.added.total(), "known": counts.known.total()}))


def measured(contestants: int, prompts: int, into: str | None) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.sqlite3"
        fill(source, contestants, prompts)
        with closing(open_store(str(source))) as store, store.write() as session:
            session.execute(delete(schema.Score))
        script = [sys.executable, "-m", "benchmarks.merge", "--timed", str(source)]
        script += ["--into", into or str(Path(folder) / "into.sqlite3")]
        done = [subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(2)]
        return [{"merge": name, **json.loads(told)} for name, told in zip(("first", "again"), done, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestants", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--into", help="an empty database by its URL; a SQLite file where left out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--timed", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.timed:
        timed(args.timed, args.into)
        return
    rows = measured(args.contestants, args.prompts, args.into)
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(title="rows of one store into another")
    for name in ("merge", "new", "there already", "s", "of a processor", "rows/s", "peak GB"):
        table.add_column(name, justify="right")
    for r in rows:
        rate = (r["new"] + r["known"]) / r["seconds"]
        counts = (f"{r['new']:,}", f"{r['known']:,}")
        times = (f"{r['seconds']:.1f}", f"{r['processor']:.1f}", f"{rate:,.0f}")
        table.add_row(r["merge"], *counts, *times, f"{r['peak_gb']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
