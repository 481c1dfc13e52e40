"""kill -9 and Ctrl-C while an endpoint is asked: what it answered is kept, and nothing is paid for twice but a few."""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dadpo_bench.store.judgments import AT_RISK
from judges.backends.pump import BACKLOG
from tests.abuse.judging import CONCURRENCY, judge_all
from tests.conftest import environment
from tests.judges.scripted_server import Act, ScriptedServer, says, serving

JUDGING = Path(__file__).with_name("judging.py")
PROMPTS = 300
KILLS = 20


def opinion(question: str) -> Act:
    """The same for the same question, fences and all: its words decide."""
    words = "".join(line for line in question.splitlines() if "<<<" not in line and ">>>" not in line)
    return says(("[[A]]", "[[B]]", "[[C]]")[hashlib.sha256(words.encode()).digest()[0] % 3])


def verdicts(store: Path) -> list[Any]:
    columns = 'judge_key, contestant_response, baseline_response, "order", outcome, reason, raw, tokens'
    with closing(sqlite3.connect(store)) as connection:
        return sorted(connection.execute(f"SELECT {columns} FROM verdicts").fetchall())


class Judging:
    """Processes that judge, one after another."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.child = 0

    def start(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.child = self._line()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def end(self) -> int:
        return self._line()


@contextmanager
def judging(store: Path, server: ScriptedServer) -> Iterator[Judging]:
    words = [sys.executable, str(JUDGING), str(store), server.url, str(PROMPTS)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    root = str(JUDGING.parents[2])
    settings = {**environment(), "PYTHONPATH": root, "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(words, env=settings, **pipes) as process:
        yield Judging(process)


class Striking:
    """Answers, and calls `strike` at a given request."""

    def __init__(self) -> None:
        self.at = -1
        self.strike: Callable[[], None] = lambda: None

    def __call__(self, number: int, body: dict[str, Any]) -> Act:
        if number == self.at:
            self.strike()
        return opinion(body["messages"][1]["content"])


def test_killed_twenty_times_it_ends_with_the_verdicts_of_an_uninterrupted_run(tmp_path: Path) -> None:
    draw = random.Random(20250616)
    script = Striking()
    whole, broken = tmp_path / "whole.sqlite3", tmp_path / "broken.sqlite3"
    with serving(script) as server:
        judge_all(str(whole), server.url, PROMPTS)
        asked_once = len(server.bodies)
        with judging(broken, server) as processes:
            script.strike = lambda: os.kill(processes.child, signal.SIGKILL)
            for _ in range(KILLS):
                script.at = len(server.bodies) + draw.randint(CONCURRENCY, 60)
                kept = len(verdicts(broken)) if broken.exists() else 0
                processes.start()
                if processes.end() == 0:  # nothing was owed any more
                    break
                assert len(verdicts(broken)) >= kept
            script.at = -1
            processes.start()
            assert processes.end() == 0
        asked = len(server.bodies) - asked_once
    assert asked_once == 2 * PROMPTS
    assert verdicts(broken) == verdicts(whole)
    assert asked <= 2 * PROMPTS + KILLS * (CONCURRENCY + BACKLOG + AT_RISK)


def test_ctrl_c_keeps_every_answer_that_was_asked_for(tmp_path: Path) -> None:
    script, store = Striking(), tmp_path / "s.sqlite3"
    script.at = 50
    with serving(script) as server, judging(store, server) as processes:
        script.strike = lambda: os.kill(processes.child, signal.SIGINT)
        processes.start()
        assert processes.end() == 130
        stopped_at = len(server.bodies)
        assert 50 < stopped_at < 2 * PROMPTS
        assert len(verdicts(store)) == stopped_at
        processes.start()
        assert processes.end() == 0
    assert len(server.bodies) == 2 * PROMPTS  # none twice
