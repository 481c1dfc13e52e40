"""When asking ends: a backend that answers nothing, a limit on top of it, a refusal while others are answered."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Outcome
from judges.backends.asking import PATIENCE
from tests.judges.configs import comparison, judge_of
from tests.judges.scripted_server import Act, fails, says, serving


def comparisons(count: int) -> list[Any]:
    return [comparison(str(n)) for n in range(count)]


def test_a_few_questions_to_a_dead_endpoint_end_with_one_error_too() -> None:
    with serving(fails(500)) as server:
        verdicts = judge_of(server, attempts=1).judge(comparisons(3))
        assert {next(verdicts)[1].outcome for _ in range(3)} == {Outcome.unscored}
        with pytest.raises(WorkError, match=r"failed all 3 questions, last with 'api error: InternalServerError 500'"):
            next(verdicts)


def test_ties_without_a_question_neither_excuse_a_dead_endpoint_nor_break_a_row_of_failures() -> None:
    with serving(fails(500)) as server:
        judge = judge_of(server, attempts=1, concurrency=1)
        tied = comparison(a="same", b="same")
        few = [comparison("0"), tied, comparison("1")]
        with pytest.raises(WorkError, match="failed all 2 questions"):
            list(judge.judge(few))
        many = [question for n in range(50) for question in (comparison(str(n)), tied)]
        with pytest.raises(WorkError, match=f"failed {PATIENCE} questions in a row"):
            list(judge.judge(many))
        assert len(server.bodies) == 2 + PATIENCE


def test_ties_without_a_question_alone_are_no_failure() -> None:
    with serving(fails(500)) as server:
        ((_, verdict),) = judge_of(server).judge([comparison(a="same", b="same")])
        assert (verdict.outcome, server.bodies) == (Outcome.tie, [])


def test_one_question_that_no_server_takes_is_unscored_and_nothing_more() -> None:
    with serving(fails(400)) as server:
        ((_, verdict),) = judge_of(server).judge([comparison()])
    assert (verdict.outcome, verdict.reason) == (Outcome.unscored, "api error: BadRequestError 400")


def test_one_answer_among_failures_is_enough() -> None:
    with serving(lambda number, _: says("[[A]]") if number == 0 else fails(500)) as server:
        found = dict(judge_of(server, attempts=1, concurrency=1).judge(comparisons(4)))
    assert [found[n].outcome for n in range(4)] == [Outcome.win, *[Outcome.unscored] * 3]


@pytest.mark.parametrize(("attempts", "failed"), [(1, 3), (2, 2), (6, 1)])
def test_a_limit_on_a_dead_endpoint_says_that_the_endpoint_fails(attempts: int, failed: int) -> None:
    with serving(fails(500)) as server:
        verdicts = judge_of(server, attempts=attempts, max_calls=3, concurrency=1).judge(comparisons(9))
        with pytest.raises(WorkError, match=f"failed all {failed} questions, last with 'api error"):
            list(verdicts)
        assert len(server.bodies) == 3


def test_a_limit_counts_as_owed_what_failed() -> None:
    with serving(lambda number, _: fails(500) if number == 0 else says("[[A]]")) as server:
        verdicts = judge_of(server, attempts=1, max_calls=3, concurrency=1).judge(comparisons(9))
        with pytest.raises(WorkError, match="7 of 9 questions to judge are owed"):
            list(verdicts)


def test_what_is_in_flight_at_a_refusal_is_answered_first_and_nobody_tries_again() -> None:
    all_three = threading.Barrier(3, timeout=30)

    def script(number: int, _: dict[str, Any]) -> Act:
        all_three.wait()
        if number == 0:
            return fails(401)
        while not judge.backend.finishing:  # until the refusal was heard
            time.sleep(0.001)
        return says("[[A]]") if number == 1 else fails(500)

    with serving(script) as server:
        judge = judge_of(server, concurrency=3, attempts=99)
        found = []
        with pytest.raises(UserError, match="answered 401"):
            found.extend(verdict.outcome for _, verdict in judge.judge(comparisons(9)))
        assert len(server.bodies) == 3
    assert found.count(Outcome.win) == 1


def test_a_judge_may_be_asked_again_when_what_was_wrong_is_mended() -> None:
    with serving([fails(401), says("[[A]]")]) as server:
        judge = judge_of(server)
        with pytest.raises(UserError):
            list(judge.judge(comparisons(1)))
        assert len(list(judge.judge(comparisons(1)))) == 1
