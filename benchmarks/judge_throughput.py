"""Verdicts a second of the chat judge, store writes included, beside a bare `AsyncOpenAI` loop that stores nothing.

Both ask a scripted server in a process of its own, in processes of their own, in turns. `--alpaca-eval PYTHON` adds
AlpacaEval's annotator, of an environment that holds alpaca_eval 0.6.6 and setuptools<80.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ANSWER = "The first answer is right and says why, the second is not. [[A]]"
MESSAGES = [
    {"role": "system", "content": "You compare two answers. " * 40},
    {"role": "user", "content": "Which of these two answers is better? " * 60},
]
"""Of the bare loop: about as many characters as the judge's filled template."""


# --- the server ---


def serve(latency: float) -> None:
    """Answer every request after `latency` seconds; prints its port."""
    body = json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "judge-2026-01-01",
            "system_fingerprint": "fp",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
            "usage": {"prompt_tokens": 600, "completion_tokens": 20, "total_tokens": 620},
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.read = transport, b""

        def data_received(self, data: bytes) -> None:
            self.read += data
            while (end := self.read.find(b"\r\n\r\n")) >= 0:
                fields = self.read[:end].lower()
                length = int(fields.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
                if len(self.read) < end + 4 + length:
                    return
                self.read = self.read[end + 4 + length :]
                if latency:
                    loop.call_later(latency, self.transport.write, answer)
                else:
                    self.transport.write(answer)

    async def work() -> None:
        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(work())


@contextmanager
def serving(latency: float) -> Iterator[str]:
    words = [sys.executable, __file__, "serve", str(latency)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


# --- the sides, each in a process of its own ---


def ours(url: str, count: int, concurrency: int, known: bool = False) -> Any:
    """The judge stage's own function on a fresh store, or on one that holds all the verdicts."""
    from dadpo_bench.engine import LocalEngine
    from dadpo_bench.judging.comparisons import BOTH, ask, construct_judge, note_judge
    from dadpo_bench.progress import silent
    from dadpo_bench.stages.bench import Bench
    from dadpo_bench.stages.responses import Stored
    from dadpo_bench.store import insert_missing, open_store, schema
    from dadpo_bench.store.judgments import keep_judgments
    from dadpo_bench.store.rows import chunks, response_row, save_prompts
    from dadpo_bench.types import JudgeContext, Outcome, Prompt, Reply, Response, Verdict

    folder = tempfile.TemporaryDirectory()
    bench = Bench(open_store(str(Path(folder.name) / "s.sqlite3")), LocalEngine(), silent())
    matches = []
    for n in range((count + 1) // 2):  # both orders are asked
        prompt = Prompt(id=str(n), turns=(f"Question {n}? " + "Please explain. " * 20,))
        matches.append(
            tuple(
                Stored(f"{side}{n}", Response(prompt=prompt, replies=(Reply(text=f"{side} {n} " + "word " * 80),)))
                for side in ("ours", "theirs")
            )
        )
    with bench.store.write() as session:
        save_prompts(session, [pair[0].response.prompt for pair in matches])
        rows = [response_row(*stored, "m", "b") for pair in matches for stored in pair]
        insert_missing(session, schema.Response, rows)
    settings = {"model": "judge", "base_url": url, "concurrency": concurrency}
    judge = note_judge(bench, "chat:judge", *construct_judge("chat", settings, JudgeContext(Path, None)))

    if known:
        said = Verdict(outcome=Outcome.win, raw=ANSWER, tokens=620, answer_tokens=20, seconds=0.25)
        fields = {"judge_key": judge.key, "asked": datetime.now(UTC), **said.model_dump(mode="json")}
        for some in chunks(matches):
            pairs = [{"contestant_response": a.key, "baseline_response": b.key} for a, b in some]
            with bench.store.write() as session:
                keep_judgments(session, schema.Verdict, [{**fields, **p, "order": o} for p in pairs for o in BOTH])

    def work() -> None:
        ask(bench, judge, matches, "judge")
        folder.cleanup()

    return work


def cached(url: str, count: int, concurrency: int) -> Any:
    """Nothing is owed: what reading the store takes."""
    return ours(url, count, concurrency, known=True)


def bare(url: str, count: int, concurrency: int) -> Any:
    """So many askers over one `AsyncOpenAI` client; answers are thrown away."""
    import openai

    async def run() -> None:
        owed = iter(range(count))

        async def asker() -> None:
            for _ in owed:
                await client.chat.completions.create(
                    model="judge", messages=MESSAGES, temperature=0, extra_body={"max_tokens": 1024}
                )

        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:
            await asyncio.gather(*(asker() for _ in range(concurrency)))

    return lambda: asyncio.run(run())


SIDES = {"ours": ours, "bare": bare}
"""Those that are compared."""


def measure(side: str, url: str, count: int, concurrency: int) -> None:
    """Print what one side took, imports and preparation left out."""
    work = {**SIDES, "cached": cached}[side](url, count, concurrency)
    before, cpu, began = peak(), time.process_time(), time.perf_counter()
    work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = {
        "seconds": seconds,
        "verdicts_per_second": count / seconds,
        "cpu_ms": 1000 * cpu / count,
        "grown_mb": peak() - before,
    }
    print(json.dumps(found))


def peak() -> float:
    """Of this process's resident memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def run_side(side: str, url: str, count: int, concurrency: int) -> dict[str, float]:
    words = [sys.executable, __file__, "side", side, url, str(count), str(concurrency)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**kept, "PYTHONPATH": path, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- AlpacaEval, in an interpreter of its own ---

ALPACA_EVAL = r"""
import json, os, sys, tempfile, time, resource
from pathlib import Path
url, count, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.environ["OPENAI_API_KEY"] = "none"
os.environ["OPENAI_API_BASE"] = os.environ["OPENAI_BASE_URL"] = url
os.environ["OPENAI_CLIENT_CONFIG_PATH"] = "none"
from alpaca_eval.annotators import PairwiseAnnotator
folder = Path(tempfile.mkdtemp())
(folder / "prompt.txt").write_text(
    "<|im_start|>user\n" + "Which is better? " * 100 + "{instruction} {output_1} {output_2}\n<|im_end|>")
configs = json.dumps({"x": {
    "prompt_template": str(folder / "prompt.txt"), "fn_completions": "openai_completions",
    "completions_kwargs": {"model_name": "gpt-4o", "max_tokens": 1024, "temperature": 0,
                           "num_procs": concurrency, "price_per_token": 0},
    "completion_parser_kwargs": {"outputs_to_match": {"1": "A", "2": "B"}},
    "fn_completion_parser": "regex_parser", "batch_size": 1}})
# JSON has no keys that are numbers, YAML has.
(folder / "configs.yaml").write_text(configs.replace('"1":', "1:").replace('"2":', "2:"))
annotator = PairwiseAnnotator(annotators_config=folder / "configs.yaml", caching_path=folder / "cache.json", seed=0)
rows = lambda side: [{"instruction": f"Question {n}?", "output": f"{side} {n} " + "word " * 80, "generator": side}
                     for n in range(count)]
one, two = rows("a"), rows("b")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cpu, began = time.process_time(), time.perf_counter()
said = annotator.annotate_head2head(outputs_1=one, outputs_2=two)
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
assert len(said) == count, len(said)
print(json.dumps({"verdicts_per_second": count / seconds, "cpu_ms": 1000 * cpu / count,
                  "grown_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000}))
"""


def run_alpaca_eval(python: str, url: str, count: int, concurrency: int) -> dict[str, float]:
    words = [python, "-c", ALPACA_EVAL, url, str(count), str(concurrency)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"AlpacaEval failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- the table ---

SETTINGS = {"250 ms": 0.25, "none": 0.0}


def main() -> None:
    """Measure in turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached", type=int, default=100_000, help="verdicts of the re-run that asks nothing; 0: none")
    parser.add_argument("--alpaca-eval", metavar="PYTHON", help="interpreter that holds alpaca_eval 0.6.6")
    parser.add_argument("--json", metavar="FILE", help="write the figures, or - to print them alone")
    options = parser.parse_args()

    found: dict[str, Any] = {"verdicts": options.verdicts, "concurrency": options.concurrency, "latency": {}}
    for name, latency in SETTINGS.items():
        taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        with serving(latency) as url:
            for _ in range(options.rounds):
                for side in SIDES:
                    taken[side].append(run_side(side, url, options.verdicts, options.concurrency))
                if options.alpaca_eval:
                    few = min(options.verdicts, 1000)
                    taken.setdefault("alpaca_eval", []).append(run_alpaca_eval(options.alpaca_eval, url, few, 64))
        ratios = [
            o["verdicts_per_second"] / b["verdicts_per_second"]
            for o, b in zip(taken["ours"], taken["bare"], strict=True)
        ]
        found["latency"][name] = {
            "ideal": options.concurrency / latency if latency else None,
            "ratio": statistics.median(ratios),
            "cpu_above_bare_ms": statistics.median(
                o["cpu_ms"] - b["cpu_ms"] for o, b in zip(taken["ours"], taken["bare"], strict=True)
            ),
            **{side: {key: statistics.median(r[key] for r in rows) for key in rows[0]} for side, rows in taken.items()},
        }
    with serving(0.0) as url:
        found["memory_mb"] = {
            count: run_side("ours", url, count, options.concurrency)["grown_mb"] for count in (1000, 4000, 16000)
        }
        if options.cached:
            found["cached"] = {
                "verdicts": options.cached,
                "seconds": run_side("cached", url, options.cached, options.concurrency)["seconds"],
            }
    if options.json:
        text = json.dumps(found, indent=1)
        print(text) if options.json == "-" else Path(options.json).write_text(text + "\n")
    if options.json != "-":
        show(found)


def show(found: dict[str, Any]) -> None:
    """Markdown, as in README.md."""
    print(f"{found['verdicts']:,} verdicts, {found['concurrency']} at once\n")
    print("| latency | who | verdicts/s | of the ideal | of the bare loop | CPU, ms a verdict | grown MB |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, row in found["latency"].items():
        for side in ("ours", "bare", "alpaca_eval"):
            if side in row:
                rate, ideal = row[side]["verdicts_per_second"], row["ideal"]
                share = f"{rate / ideal:.2f}" if ideal else ""
                ratio = row["ratio"] if side == "ours" else rate / row["bare"]["verdicts_per_second"]
                print(
                    f"| {name} | {side} | {rate:,.0f} | {share} | {ratio:.2f} | {row[side]['cpu_ms']:.2f} "
                    f"| {row[side]['grown_mb']:.0f} |"
                )
    print(f"\ngrown MB by verdicts: {', '.join(f'{n:,}: {mb:.0f}' for n, mb in found['memory_mb'].items())}")
    if "cached" in found:
        print(f"{found['cached']['verdicts']:,} verdicts that are all there: {found['cached']['seconds']:.2f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(float(sys.argv[2]))
    elif sys.argv[1:2] == ["side"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
