"""Times a report of 100,000 stored verdicts, and Chromium on its pages.

50 contestants and a baseline on 1,000 prompts, both orders: a store is made, then a process of its own writes its
report; its peak memory is told. Then Chromium opens the first page and the comparisons from disk, and filters. Last,
`dadpo-bench view` of the committed reference is started.

usage: python -m benchmarks.report [--contestants 50] [--prompts 1000] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.scoring import fill

REQUIRED = {"build_seconds": 20.0, "peak_gb": 1.0, "first_page_seconds": 1.0, "filter_seconds": 0.2}
REQUIRED |= {"view_starts_seconds": 2.0}
REFERENCE = Path(__file__).parents[1] / "results" / "reference.sqlite3"


def write(store: str, folder: str) -> None:
    """In a process of its own: the report, its seconds and peak memory, as JSON."""
    from dadpo_bench.progress import silent
    from dadpo_bench.report import write_report
    from dadpo_bench.store import open_store

    began = time.perf_counter()
    with closing(open_store(store, create=False)) as opened:
        written = write_report(opened, Path(folder), silent())
    print(
        json.dumps(
            {
                "build_seconds": time.perf_counter() - began,
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
                "megabytes": written.size / 1e6,
                "comparisons": written.comparisons,
            }
        )
    )


_FILTER = """() => new Promise(done => {
  const began = performance.now(), select = document.querySelector('select[name=contestant]');
  select.value = '7';
  select.dispatchEvent(new Event('input', {bubbles: true}));
  requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - began) / 1000)));
})"""


def look(folder: Path) -> dict[str, float]:
    """Chromium on the pages, from disk."""
    from tests.report.browsers import Looking, chromium, looking

    with chromium() as browser, looking(browser, folder) as seen:
        opened: Looking = seen
        times = {}
        for name, page in (("first_page_seconds", "index.html"), ("comparisons_seconds", "comparisons.html")):
            began = time.perf_counter()
            opened.open(page)
            times[name] = time.perf_counter() - began
        times["filter_seconds"] = opened.page.evaluate(_FILTER)
        began = time.perf_counter()
        opened.page.keyboard.press("j")
        opened.page.locator("#comparison h2").wait_for()
        times["comparison_seconds"] = time.perf_counter() - began
        return times


def serve(store: Path) -> dict[str, float]:
    """`dadpo-bench view`, from its start: until it tells its address, and until the first page is there."""
    from tests.report.browsers import serving

    began = time.perf_counter()
    with serving(store) as (address, _):
        told = time.perf_counter() - began
        with urllib.request.urlopen(f"{address}index.html", timeout=60) as answer:
            answer.read()
        return {"view_starts_seconds": told, "view_first_page_seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestants", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=1_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(*options.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        store, report = Path(folder) / "x.sqlite3", Path(folder) / "report"
        verdicts = fill(store, options.contestants, options.prompts)
        command = [sys.executable, "-m", "benchmarks.report", "--write", str(store), str(report)]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = {"verdicts": verdicts, **json.loads(made.stdout), **look(report)}
    found |= serve(REFERENCE)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    table = Table("what", "measured", "required", title=f"a report of {verdicts:,} verdicts")
    for name, value in found.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}", f"{REQUIRED[name]:g}" if name in REQUIRED else "")
    Console().print(table)


if __name__ == "__main__":
    main()
