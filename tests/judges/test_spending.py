"""What asking costs, and limits on it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import JudgeContext, Message, Outcome, Prompt, Reply, Response
from judges.backends.endpoint import Endpoint, EndpointConfig
from judges.backends.spending import Price, prices
from judges.chat import Chat
from judges.chat_score import ChatScore
from tests.judges.configs import chat_config, comparison, judge_of, score_config
from tests.judges.scripted_server import Act, fails, says, serving

PRICE = Price(input=2.0, output=10.0, date="2026-01-01", source="a test")


def test_a_price_is_per_million_tokens() -> None:
    assert PRICE.usd(1000, 100) == pytest.approx(0.003)  # 1000 · 2e-6 + 100 · 10e-6


def test_every_shipped_price_says_when_and_where_it_was_read() -> None:
    assert all(price.date and price.source and price.output >= price.input > 0 for price in prices().values())


def test_no_more_calls_are_made_than_allowed_and_what_is_owed_is_said() -> None:
    with serving(says("[[A]]")) as server:
        judge = judge_of(server, max_calls=5, concurrency=3)
        verdicts = judge.judge([comparison(str(n)) for n in range(9)])
        assert [next(verdicts)[1].outcome for _ in range(5)] == [Outcome.win] * 5
        with pytest.raises(WorkError, match=r"--max-calls 5 is reached: 4 of 9 questions to judge are owed"):
            next(verdicts)
        assert len(server.bodies) == 5


def test_a_call_that_is_repeated_counts_again() -> None:
    with serving([fails(500), says("[[A]]")]) as server:
        judge = judge_of(server, max_calls=2, concurrency=1)
        with pytest.raises(WorkError, match="1 of 2 questions"):
            list(judge.judge([comparison(str(n)) for n in range(2)]))


def test_a_limit_that_is_not_reached_ends_nothing() -> None:
    with serving(says("[[A]]")) as server:
        assert len(list(judge_of(server, max_calls=3).judge([comparison(str(n)) for n in range(3)]))) == 3


def test_no_more_is_spent_than_the_budget_though_no_answer_is_as_long_as_allowed() -> None:
    # A call costs 90 · 1 + 9 · 1 = 99 millionths; at most 2000 characters / 4.5 + 500 are set aside for one.
    with serving(says("[[A]]")) as server:
        judge = judge_of(server, usd_per_million=(1.0, 1.0), budget_usd=0.005, max_tokens=500, concurrency=4)
        with pytest.raises(WorkError, match=r"--budget-usd 0.005 is reached \(\$0\.00"):
            list(judge.judge([comparison(str(n)) for n in range(99)]))
        spent = 99e-6 * len(server.bodies)
    assert 0.005 - 0.0011 < spent <= 0.005
    assert f"${spent:.4f}" in judge.bill()


def test_told_to_finish_nobody_waits_for_a_budget_to_ask_on() -> None:
    def script(number: int, _: dict[str, Any]) -> Act:
        judge.finish()  # the second asker waits: one call is all that the budget allows at a time
        return says("[[A]]")

    with serving(script) as server:
        judge = judge_of(server, usd_per_million=(1.0, 1.0), budget_usd=0.0015, max_tokens=500, concurrency=2)
        assert len(list(judge.judge([comparison(str(n)) for n in range(9)]))) == 1
        assert len(server.bodies) == 1


def test_a_budget_holds_over_several_sets_of_questions() -> None:
    # Two calls at most are set aside for at a time, so of eight askers six wait: in either set's event loop.
    with serving(says("[[A]]")) as server:
        judge = judge_of(server, usd_per_million=(1.0, 1.0), budget_usd=0.025, max_tokens=10_000, concurrency=8)
        for _ in range(2):
            assert len(list(judge.judge([comparison(str(n)) for n in range(9)]))) == 9
    assert judge.backend.meter.calls == 18


def test_a_budget_needs_a_price() -> None:
    with pytest.raises(UserError, match=r"no price is known of 'x' there.*usd_per_million"):
        Endpoint(EndpointConfig(model="x", base_url="http://127.0.0.1/v1", budget_usd=1.0))


def test_nothing_is_paid_back() -> None:
    with pytest.raises(UserError, match="usd_per_million"):
        chat_config(model="x", usd_per_million=[-1.0, 1.0])


def test_a_shipped_price_is_of_openais_own_endpoint_alone() -> None:
    official = Endpoint(EndpointConfig(model="gpt-4o"), key=False)
    elsewhere = Endpoint(EndpointConfig(model="gpt-4o", base_url="http://127.0.0.1/v1"))
    assert official.meter.price == prices()["gpt-4o"]
    assert elsewhere.meter.price is None


def test_the_estimate_counts_characters_and_says_so() -> None:
    meter = Endpoint(EndpointConfig(model="gpt-4o", max_tokens=100), key=False).meter
    said = meter.estimate([[Message(role="user", content="x" * 4500)]], 1000)
    # 4500 / 4.5 = 1000 tokens a call at $2.5 a million: $2.50; answers of 100 tokens at $10: $1 more
    assert "1,000 calls, about 1,000,000 tokens to read (characters / 4.5), at most 100,000 to answer" in said
    assert "$2.50 to $3.50" in said
    assert prices()["gpt-4o"].date in said


def test_an_unknown_price_is_said_plainly() -> None:
    meter = Endpoint(EndpointConfig(model="new", base_url="http://127.0.0.1/v1")).meter
    assert "no price is known of 'new' there" in meter.estimate([], 10)
    assert "no price is known of 'new' there" in meter.bill()


def test_an_endpoint_that_counts_no_tokens_is_billed_by_characters() -> None:
    with serving(Act(b'{"choices": [{"message": {"content": "[[A]]"}}]}')) as server:
        judge = judge_of(server)
        list(judge.judge([comparison()]))
    assert judge.backend.meter.read > 100
    assert judge.backend.meter.answered == 1


def test_limits_and_prices_decide_no_verdict() -> None:
    def identity(**settings: Any) -> Any:
        return Chat(chat_config(model="j", base_url="http://127.0.0.1/v1", **settings), None).identity()  # type: ignore[arg-type]

    assert identity() == identity(max_calls=1, usd_per_million=(1, 1), budget_usd=1)


def test_a_limit_leaves_no_response_half_rated() -> None:
    # Two turns each: with room for five calls two responses are asked, and nothing that was paid for is dropped.
    with serving(says("Rating: [[7]]")) as server:
        config = score_config(model="judge", base_url=server.url, max_calls=5, concurrency=4)
        judge = ChatScore(config, JudgeContext(Path, None))
        prompt = Prompt(id="p", turns=("One?", "Two?"))
        responses = [Response(prompt=prompt, replies=(Reply(text=f"{n}"), Reply(text="b"))) for n in range(6)]
        rated: list[float | None] = []
        with pytest.raises(WorkError, match="--max-calls 5 is reached: 4 of 6 questions"):
            rated.extend(rating.value for _, rating in judge.rate(responses))
        assert (rated, len(server.bodies)) == ([7, 7], 4)


def test_whoever_waits_for_room_keeps_no_place_from_those_who_have_it() -> None:
    # Eight askers have room for a call each, two of them a place, three when two answers came. The first three answers
    # are at fault: there is no room to ask again while the others wait for a place, nor when all is spent.
    texts = iter([*["Hm."] * 3, *["Rating: [[7]]"] * 5])
    with serving(lambda *_: says(next(texts))) as server:
        limits = {"usd_per_million": (0.0, 1.0), "max_tokens": 9, "budget_usd": 8.5 * 9e-6}  # an answer takes 9 tokens
        judge = ChatScore(score_config(model="judge", base_url=server.url, **limits), JudgeContext(Path, None))
        judge.backend.pool.servers[0].window.limit = 2  # type: ignore[attr-defined]
        prompt = Prompt(id="p", turns=("?",))
        responses = [Response(prompt=prompt, replies=(Reply(text=f"{n}"),)) for n in range(8)]
        reasons: list[str] = []

        def work() -> None:
            with pytest.raises(WorkError, match="3 of 8 questions to judge are owed"):
                reasons.extend(rating.reason for _, rating in judge.rate(responses))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(60)
    assert sorted(reasons) == [""] * 5 + ["unparsable"] * 3


def test_an_answer_at_fault_that_a_limit_lets_nobody_ask_for_again_is_kept() -> None:
    with serving(says("Hm.")) as server:
        verdicts = judge_of(server, max_calls=1, concurrency=1).judge([comparison(str(n)) for n in range(2)])
        _, verdict = next(verdicts)
        assert (verdict.outcome, verdict.reason, verdict.tokens) == (Outcome.unscored, "unparsable", 99)
        with pytest.raises(WorkError, match="--max-calls 1 is reached: 2 of 2 questions"):
            next(verdicts)
