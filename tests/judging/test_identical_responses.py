"""Models that say the same get the same rating, of one question: a second one might end otherwise."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dadpo_bench.engine import LocalEngine
from dadpo_bench.judging.comparisons import Match, OpenJudge, ask, note_judge
from dadpo_bench.judging.judgments import Judgments, places
from dadpo_bench.progress import silent
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import insert_missing, open_store, schema
from dadpo_bench.store.rows import response_row, save_prompts
from dadpo_bench.types import JudgeContext, Prompt, Reply, Response
from judges.chat_score import ChatScore
from judges.entries import chat_score
from tests.judges.configs import score_config
from tests.judges.scripted_server import Act, says, serving

PROMPT = Prompt(id="p", turns=("Q?",))


def given(key: str, text: str) -> Stored:
    return Stored(key, Response(prompt=PROMPT, replies=(Reply(text=text),)))


SAME: Match = (given("ours", "Paris."), given("theirs", "Paris."))
OTHER: Match = (given("third", "Lyon."), given("theirs", "Paris."))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = open_store(str(tmp_path / "x.sqlite3"))
    with store.write() as session:
        save_prompts(session, [PROMPT])
        insert_missing(session, schema.Response, [response_row(*one, "m", "b") for one in {*SAME, *OTHER}])
    yield Bench(store, LocalEngine(), silent())
    store.close()


def fickle() -> Any:
    """A server that rates everything otherwise than before."""
    numbers = count(1)
    return lambda *_: says(f"[[{next(numbers)}]]")


def judge_of(bench: Bench, url: str) -> OpenJudge:
    config = score_config(model="j", base_url=url, backoff_seconds=0, concurrency=1)  # rated in the order asked
    return note_judge(bench, "chat-score:j", chat_score, ChatScore(config, JudgeContext(Path, None)))


def outcomes(bench: Bench, judge: OpenJudge, *matches: Match) -> list[list[float]]:
    keys = [(ours.key, theirs.key) for ours, theirs in matches]
    with bench.store.read() as session:
        row = session.get_one(schema.Judge, judge.key)
        place = places(key for pair in keys for key in pair)
        at = np.array([[place[key] for key in pair] for pair in keys])
        found: list[list[float]] = Judgments(session, row, place).outcomes(at[:, 0], at[:, 1]).tolist()
        return found


def tokens(bench: Bench) -> dict[str, int]:
    with bench.store.read() as session:
        return {row.response_key: row.tokens for row in session.query(schema.Rating)}


def test_identical_responses_tie_though_the_judge_would_rate_them_apart(bench: Bench) -> None:
    with serving(fickle()) as server:
        judge = judge_of(bench, server.url)
        assert ask(bench, judge, [SAME, OTHER], "") == []
        assert len(server.bodies) == 2
    assert outcomes(bench, judge, SAME, OTHER) == [[0.5], [1.0]]  # rated 1, 1 and 2
    assert tokens(bench) == {"ours": 99, "theirs": 0, "third": 99}  # paid for once


def test_an_earlier_runs_rating_is_taken_over(bench: Bench) -> None:
    with serving(fickle()) as server:
        judge = judge_of(bench, server.url)
        ask(bench, judge, [OTHER], "")
        ask(bench, judge, [SAME], "")
        assert len(server.bodies) == 2
    assert outcomes(bench, judge, SAME) == [[0.5]]


def test_what_could_not_be_rated_is_so_for_all_and_asked_again_once(bench: Bench) -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        return says("no idea") if number < 3 else says("[[7]]")

    with serving(script) as server:
        judge = judge_of(bench, server.url)
        assert ask(bench, judge, [SAME], "") == ["unparsable"]
        with bench.store.read() as session:
            reasons = {row.response_key: row.reason for row in session.query(schema.Rating)}
        assert reasons == {"ours": "unparsable", "theirs": "unparsable"}
        assert ask(bench, judge, [SAME], "") == []
        assert len(server.bodies) == 4  # asked three times, then once
    assert outcomes(bench, judge, SAME) == [[0.5]]
    assert tokens(bench) == {"ours": 99, "theirs": 0}
