"""An endpoint of whose answers three in ten go wrong: every verdict is scored, none is lost and none paid for twice."""

import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.abuse.judging import judge_all
from tests.abuse.test_judging import opinion, verdicts
from tests.judges.scripted_server import Act, fails, says, serving

PROMPTS = 100
SHARE = 0.3

GOOD = says("[[A]]")
FAULTS = {
    "429": fails(429, Retry_After="0.01"),
    "500": fails(500),
    "503": fails(503, Retry_After="0"),
    "reset": Act(dropped=True),
    "torn": replace(GOOD, torn=True),
    "cut JSON": replace(GOOD, body=GOOD.body[:100]),
    "no JSON": Act(b"<html>bad gateway</html>"),
    "stall": Act(held=True),
}
WEIGHTS = [4, 4, 4, 4, 4, 4, 4, 1]


class Faulty:
    """What goes wrong is drawn for each question and attempt, so it does not hang on who is asked first."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def __call__(self, _: int, body: dict[str, Any]) -> Act:
        question = body["messages"][1]["content"]
        words = "".join(line for line in question.splitlines() if "<<<" not in line and ">>>" not in line)
        self.attempts[words] += 1
        draw = random.Random(f"20250616/{words}/{self.attempts[words]}")
        if draw.random() >= SHARE:
            self.answered[words] += 1
            return opinion(question)
        (fault,) = draw.choices(list(FAULTS), WEIGHTS)
        self.faults[fault] += 1
        return FAULTS[fault]


@pytest.mark.parametrize("servers", [1, 2])
def test_every_verdict_is_scored_and_none_doubled_though_three_requests_in_ten_fail(
    servers: int, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole.sqlite3", tmp_path / "broken.sqlite3"
    script = Faulty()
    with ExitStack() as stack:
        sound = stack.enter_context(serving(lambda _, body: opinion(body["messages"][1]["content"])))
        judge_all(str(whole), sound.url, PROMPTS)
        urls = [stack.enter_context(serving(script)).url for _ in range(servers)]
        judge_all(str(broken), urls, PROMPTS, timeout_seconds=5, backoff_seconds=0.01)
    assert len(verdicts(whole)) == 2 * PROMPTS
    assert verdicts(broken) == verdicts(whole)  # in outcomes, words and tokens
    assert len(script.answered) == 2 * PROMPTS
    assert set(script.answered.values()) == {1}
    assert set(script.faults) == set(FAULTS)
    assert script.faults.total() == pytest.approx(SHARE * script.attempts.total(), rel=0.2)
