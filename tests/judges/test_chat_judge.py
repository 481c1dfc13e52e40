"""The chat judge against a scripted endpoint: what each answer and each failure becomes."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from contextlib import closing
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import openai
import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Comparison, Outcome, Verdict
from judges.backends.asking import PATIENCE
from judges.backends.pool import retry_after
from judges.chat import Chat
from tests.judges.configs import CONTEXT, KEY, chat_config, comparison, judge_of, said, unscored
from tests.judges.scripted_server import Act, Script, fails, says, serving


def ask(script: Script | Act | list[Act], *comparisons: Comparison, **settings: Any) -> list[Verdict]:
    with serving(script) as server:
        found = dict(judge_of(server, **settings).judge(comparisons or [comparison()]))
    return [found[index] for index in range(len(comparisons or [0]))]


def first(script: Script | Act | list[Act], **settings: Any) -> Verdict:
    """On one comparison, whether or not the work then ends with an error."""
    with serving(script) as server, closing(judge_of(server, **settings).judge([comparison()])) as verdicts:
        return next(verdicts)[1]


def test_a_verdict_carries_what_was_said_who_said_it_and_what_it_cost() -> None:
    (verdict,) = ask(says("A is right.\n[[A]]"))
    assert verdict.outcome is Outcome.win
    assert verdict.raw == "A is right.\n[[A]]"
    assert verdict.resolved_model == "judge-2026-01-01"
    assert verdict.tokens == 99
    assert 0 < verdict.seconds < 30


def test_the_first_shown_wins_in_both_orders_so_the_contestant_wins_once() -> None:
    verdicts = ask(says("[[A]]"), comparison(order="ab"), comparison(order="ba"))
    assert [v.outcome for v in verdicts] == [Outcome.win, Outcome.loss]


def test_a_tie_is_a_tie() -> None:
    assert ask(says("[[C]]"))[0].outcome is Outcome.tie


def test_identical_responses_tie_without_a_call() -> None:
    with serving(says("[[A]]")) as server:
        found = list(judge_of(server).judge([comparison(a="same", b="same")]))
    assert found == [(0, Verdict(outcome=Outcome.tie, reason="identical"))]
    assert server.bodies == []


def test_an_empty_response_is_judged() -> None:
    assert ask(says("[[B]]"), comparison(a=""))[0].outcome is Outcome.loss


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (says("I cannot tell."), "unparsable"),
        (says(":"), "unparsable"),
        (says(""), "refused"),
        (says(None), "refused"),
        (says("[[A]]", finish="content_filter"), "refused"),
        (says("", refusal="I will not compare these."), "refused"),
        (says("[[A]]", refusal="No."), "refused"),
        (says("Assistant A is", finish="length"), "too long"),
        (says("", finish="length"), "too long"),
        (Act(b'{"choices": ['), "unparsable"),
        (Act(b"<html>gateway</html>", headers={"content-type": "text/html"}), "unparsable"),
        (Act(b"[]"), "unparsable"),
        (Act(b"{}"), "unparsable"),
        (Act(b'{"choices": []}'), "unparsable"),
        (Act(b'{"choices": [{}]}'), "unparsable"),
        (Act(b'{"choices": [{"message": {"content": ["x"]}}]}'), "unparsable"),
        (Act(b'{"choices": "x", "model": 3}'), "unparsable"),
        (fails(400, "context_length_exceeded"), "too long"),
        (fails(400, message="This model's maximum context length is 2048 tokens"), "too long"),
        (fails(400, "content_filter"), "refused"),
        (fails(400), "api error: BadRequestError 400"),
        (fails(422), "api error: UnprocessableEntityError 422"),
        (fails(429), "api error: RateLimitError 429"),
        (fails(500), "api error: InternalServerError 500"),
        (fails(503), "api error: InternalServerError 503"),
        (Act(dropped=True), "api error: APIConnectionError"),
        (replace(says("[[A]]"), torn=True), "api error: APIConnectionError"),
        (Act(b"[" * 100_000), "unparsable"),
    ],
)
def test_what_cannot_be_scored_says_why(act: Act, reason: str) -> None:
    assert said(first(act)) == unscored(reason)


def test_what_no_database_takes_is_not_kept_of_an_answer() -> None:
    usage = b'"usage": {"total_tokens": 99999999999999999999}'
    answer = b'{"choices": [{"message": {"content": "\\ud83d\\u0000 [[A]]"}}], "model": "' + b"x" * 300 + b'", ' + usage
    (verdict,) = ask(Act(answer + b"}"))
    assert (verdict.outcome, verdict.raw, verdict.tokens) == (Outcome.win, "?? [[A]]", 0)
    assert len(verdict.resolved_model) == 200


def test_a_lean_answer_without_model_or_usage_is_read() -> None:
    (verdict,) = ask(Act(b'{"choices": [{"message": {"content": "[[A]]"}}]}'))
    assert (verdict.outcome, verdict.resolved_model, verdict.tokens) == (Outcome.win, "", 0)


def test_a_label_in_an_answer_that_was_cut_is_no_verdict() -> None:
    (verdict,) = ask(says("I first thought [[B]], but", finish="length"))
    assert (verdict.outcome, verdict.reason) == (Outcome.unscored, "too long")


@pytest.mark.parametrize(
    "failure",
    [
        *(fails(429, Retry_After="0"), fails(500), fails(408), Act(dropped=True)),
        *(replace(says("[[B]]"), torn=True), Act(b'{"choices": ['), Act(b"{}")),
    ],
    ids=["429", "500", "408", "drop", "torn", "cut JSON", "no completion"],
)
def test_passing_failures_are_tried_again(failure: Act) -> None:
    assert ask([failure, failure, says("[[A]]")])[0].outcome is Outcome.win


@pytest.mark.parametrize("failure", [fails(400), fails(422)], ids=["400", "422"])
def test_failures_that_would_repeat_are_not_tried_again(failure: Act) -> None:
    with serving(failure) as server, closing(judge_of(server).judge([comparison()])) as verdicts:
        assert next(verdicts)[1].outcome is Outcome.unscored
        assert len(server.bodies) == 1


def test_retry_after_is_honoured_in_full() -> None:
    started = time.monotonic()
    assert ask([fails(429, Retry_After="0.3"), says("[[A]]")])[0].outcome is Outcome.win
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("0.5", 0.5, 0.5), ("-3", 0, 0), (formatdate(time.time() + 86_400, usegmt=True), 3000, 86_500)],
    ids=["7", "0.5", "-3", "date"],  # test processes must name it alike
)
def test_retry_after_is_seconds_or_a_date(header: str, low: float, high: float) -> None:
    assert low <= (retry_after(status_error(header)) or 0.0) <= high


@pytest.mark.parametrize("header", ["", "soon", "1 2 3", "Wed, 21 Oct 99999999999999 07:28:00 GMT"])
def test_a_retry_after_that_means_nothing_is_ignored(header: str) -> None:
    assert retry_after(status_error(header)) is None


def status_error(retry_after: str) -> openai.APIStatusError:
    import httpx2

    request = httpx2.Request("POST", "http://127.0.0.1/")
    response = httpx2.Response(429, headers={"retry-after": retry_after}, request=request)
    return openai.RateLimitError("slow down", response=response, body=None)


def test_a_slow_server_times_out() -> None:
    assert said(first(Act(held=True), timeout_seconds=0.05, attempts=2)) == unscored("api error: TimeoutError")


def test_one_slow_answer_holds_up_no_other() -> None:
    def script(_: int, body: dict[str, Any]) -> Act:
        return Act(held=True) if "Question 0?" in body["messages"][1]["content"] else says("[[A]]")

    with serving(script) as server:
        verdicts = judge_of(server, concurrency=2).judge([comparison(str(n)) for n in range(6)])
        assert sorted(next(verdicts)[0] for _ in range(5)) == [1, 2, 3, 4, 5]
        verdicts.close()


def test_requests_in_flight_are_bounded() -> None:
    barrier = threading.Barrier(3, timeout=10)

    def script(_number: int, _body: dict[str, Any]) -> Act:
        barrier.wait()  # passes only if three are in flight at once
        return says("[[A]]")

    with serving(script) as server:
        assert len(list(judge_of(server, concurrency=3).judge([comparison(str(n)) for n in range(9)]))) == 9
        assert server.most_open == 3


def test_nothing_is_asked_before_the_first_verdict_is_wanted() -> None:
    with serving(says("[[A]]")) as server:
        judge_of(server).judge([comparison()])
        assert not server.asked.wait(0.05)


def test_the_request_is_what_the_config_says() -> None:
    with serving(says("[[A]]")) as server:
        list(judge_of(server, max_tokens=77).judge([comparison()]))
    (body,) = server.bodies
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0.0, 77)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert all(text in body["messages"][1]["content"] for text in ("Question 0?", "good", "bad"))


def test_no_temperature_is_sent_where_none_is_wanted() -> None:
    with serving(says("[[A]]")) as server:
        list(judge_of(server, temperature=None).judge([comparison()]))
    assert "temperature" not in server.bodies[0]


# --- one error for what no comparison can outlive ---


@pytest.mark.parametrize(
    ("act", "remedy"),
    [
        (fails(401), "check OPENAI_API_KEY"),
        (fails(403), "may not use model 'judge'"),
        (fails(404), "no model 'judge'"),
        (fails(429, "insufficient_quota"), "quota is used up"),
    ],
)
def test_a_permanent_refusal_ends_the_work_at_once_and_names_the_remedy(act: Act, remedy: str) -> None:
    with serving(act) as server:
        with pytest.raises(UserError, match=remedy) as caught:
            list(judge_of(server, concurrency=1).judge([comparison(str(n)) for n in range(50)]))
        assert len(server.bodies) == 1
    assert "\n" not in str(caught.value)


def test_verdicts_before_a_permanent_refusal_stand() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        return says("[[A]]") if number < 3 else fails(401)

    with serving(script) as server:
        verdicts = judge_of(server, concurrency=1).judge([comparison(str(n)) for n in range(9)])
        assert [next(verdicts)[1].outcome for _ in range(3)] == [Outcome.win] * 3
        with pytest.raises(UserError):
            next(verdicts)


def test_a_dead_endpoint_ends_the_work_after_so_many_failures_in_a_row() -> None:
    with serving(fails(500)) as server:
        verdicts = judge_of(server, attempts=1, concurrency=1).judge([comparison(str(n)) for n in range(99)])
        seen = [next(verdicts)[1] for _ in range(PATIENCE)]
        with pytest.raises(WorkError, match=r"8 questions in a row.*InternalServerError 500"):
            next(verdicts)
        assert len(server.bodies) == PATIENCE
    assert {said(verdict) for verdict in seen} == {unscored("api error: InternalServerError 500")}


def test_scattered_failures_do_not_end_the_work() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        return says("[[A]]") if number % 5 == 0 else fails(500)

    verdicts = ask(script, *(comparison(str(n)) for n in range(30)), attempts=1, concurrency=1)
    assert sum(verdict.outcome is Outcome.win for verdict in verdicts) == 6


def test_identity_holds_what_decides_a_verdict_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def identity(**settings: Any) -> str:
        return json.dumps(Chat(chat_config(**({"model": "judge"} | settings)), CONTEXT).identity())

    same = {
        "concurrency": 1,
        "timeout_seconds": 1,
        "attempts": 1,
        "backoff_seconds": 9,
        "api_key_env": "OPENAI_API_KEY",
    }
    assert identity() == identity(**same)
    local = {identity(base_url=f"http://{host}/v1") for host in ("127.0.0.1:1", "localhost:2")}
    assert len(local) == 1
    other = [
        {"model": "x"},
        {"temperature": 1},
        {"temperature": None},
        {"max_tokens": 9},
        {"base_url": "http://h/v1"},
    ]
    assert len({identity(), *local, *(identity(**settings) for settings in other)}) == 7


# --- answers at fault: asked again twice ---


FAULTS = {
    "refused": says("", refusal="No."),
    "unparsable": says("Hm."),
    "another model answered": says("[[A]]"),
    "missing log-prob": says("A"),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "another model answered": {"answered_by": "judge-2027"},
    "missing log-prob": {"template": "graded"},
}


@pytest.mark.parametrize("reason", FAULTS)
def test_an_answer_at_fault_is_asked_again_twice_then_unscored_with_the_reason(reason: str) -> None:
    with serving(FAULTS[reason]) as server:
        _, verdict = next(judge_of(server, **SETTINGS.get(reason, {})).judge([comparison()]))
    assert said(verdict) == unscored(reason)
    assert len(server.bodies) == 3


@pytest.mark.parametrize("reason", ["refused", "unparsable", "another model answered"])
def test_a_better_answer_is_taken_and_what_all_of_them_took_is_kept(reason: str) -> None:
    good = says("[[A]]")
    good = replace(good, body=good.body.replace(b"judge-2026-01-01", b"judge-2027"))
    with serving([FAULTS[reason], FAULTS[reason], good]) as server:
        ((_, verdict),) = judge_of(server, **SETTINGS.get(reason, {})).judge([comparison()])
    assert (verdict.outcome, verdict.raw, verdict.tokens) == (Outcome.win, "[[A]]", 3 * 99)
    marks = {re.findall(r"<<<(\w+)", body["messages"][-1]["content"])[0] for body in server.bodies}
    assert len(marks) == 3  # no answer can know the marks of the next question


def test_an_answer_that_would_be_the_same_again_is_not_asked_again() -> None:
    assert said(ask([says("Assistant A is", finish="length")])[0]) == unscored("too long")


# --- an endpoint that is overrun ---


def test_requests_in_flight_shrink_while_the_endpoint_is_overrun_and_grow_back() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        return fails(429) if number == 0 else says("[[A]]")

    with serving(script) as server:
        judge = judge_of(server, concurrency=8)
        verdicts = list(judge.judge([comparison(str(n)) for n in range(80)]))
    assert {verdict.outcome for _, verdict in verdicts} == {Outcome.win}
    assert judge.backend.pool.servers[0].window.limit == 8  # 4 behind the failure, and a round for each of 5, 6, 7, 8
    assert len(server.bodies) == 81


def test_a_retry_after_holds_everybody() -> None:
    times: list[float] = []

    def script(number: int, _: dict[str, Any]) -> Act:
        times.append(time.monotonic())
        if number == 0:
            return fails(429, Retry_After="0.3")
        while (
            number == 1 and judge.backend.pool.servers[0].window.limit == 2
        ):  # it is answered once the refusal was heard
            time.sleep(0.001)
        return says("[[A]]")

    with serving(script) as server:
        judge = judge_of(server, concurrency=2)
        list(judge.judge([comparison(str(n)) for n in range(3)]))
    assert times[2] - times[0] >= 0.3


# --- a consumer that stops early ---


def test_told_to_finish_it_answers_what_is_in_flight_and_asks_nothing_more() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        if number == 5:
            judge.finish()
        return says("[[A]]")

    with serving(script) as server:
        judge = judge_of(server, concurrency=3)
        verdicts = list(judge.judge([comparison(str(n)) for n in range(99)]))
        assert 6 <= len(verdicts) == len(server.bodies) < 99


def test_told_to_finish_nobody_waits_to_try_again() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        if number == 1:
            judge.finish()
            return says("[[A]]")
        return fails(429, Retry_After="60")

    with serving(script) as server:
        judge = judge_of(server, concurrency=2)
        started = time.monotonic()
        assert len(list(judge.judge([comparison(str(n)) for n in range(9)]))) <= 2
        assert time.monotonic() - started < 30


def judge_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "judge"]


def test_closing_early_cancels_open_requests_and_leaves_no_thread() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        return says("[[A]]") if number == 0 else Act(held=True)

    with serving(script) as server:
        verdicts = judge_of(server, concurrency=4).judge([comparison(str(n)) for n in range(99)])
        next(verdicts)
        started = time.monotonic()
        verdicts.close()
        assert time.monotonic() - started < 30
        assert len(server.bodies) <= 5
    assert judge_threads() == []


def test_an_error_of_the_consumer_comes_through() -> None:
    def consume(judge: Chat) -> None:
        with closing(judge.judge([comparison(str(n)) for n in range(20)])) as verdicts:
            for _ in verdicts:
                raise ZeroDivisionError

    with serving(says("[[A]]")) as server, pytest.raises(ZeroDivisionError):
        consume(judge_of(server))
    assert judge_threads() == []


def test_ctrl_c_while_waiting_ends_the_work() -> None:
    def script(_number: int, _body: dict[str, Any]) -> Act:
        os.kill(os.getpid(), signal.SIGINT)
        return Act(held=True)

    with serving(script) as server:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(judge_of(server, concurrency=1).judge([comparison()]))
        assert time.monotonic() - started < 30
    assert judge_threads() == []


def test_it_works_inside_a_running_event_loop() -> None:
    import asyncio

    async def notebook() -> list[tuple[int, Verdict]]:
        with serving(says("[[A]]")) as server:
            return list(judge_of(server).judge([comparison()]))

    assert asyncio.run(notebook())[0][1].outcome is Outcome.win
