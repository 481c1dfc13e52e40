"""The chat judges' modes: five levels, log-probs, references, checklists, turns, ratings by turn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Comparison, JudgeContext, Order, Outcome, Prompt, Rating, Reply, Response, Verdict
from judges.backends.asking import PATIENCE
from judges.chat import Chat
from judges.chat_score import ChatScore
from tests.judges.configs import chat_config, score_config
from tests.judges.scripted_server import Act, Script, fails, says, serving

CONTEXT = JudgeContext(Path, None)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def comparison(order: Order = "ab", turns: tuple[str, ...] = ("Q?",), **guides: tuple[str, ...]) -> Comparison:
    prompt = Prompt(id="p", turns=turns, **guides)
    first, second = (Response(prompt=prompt, replies=tuple(Reply(text=side + turn) for turn in turns)) for side in "xy")
    return Comparison(contestant=first, baseline=second, order=order)


def judged(act: Script | Act | list[Act], *asked: Comparison, **settings: Any) -> list[Verdict]:
    with serving(act) as server:
        found = dict(Chat(chat_config(model="judge", base_url=server.url, **settings), CONTEXT).judge(asked))
    return [found[index] for index in range(len(asked))]


def rated(act: Script | Act | list[Act], response: Response, **settings: Any) -> Rating:
    with serving(act) as server:
        ((_, rating),) = ChatScore(score_config(model="judge", base_url=server.url, **settings), CONTEXT).rate(
            [response]
        )
    return rating


def likely(text: str, **masses: float) -> Act:
    """A one-token answer with its top log-probs."""
    top = [{"token": token, "logprob": math.log(mass), "bytes": None} for token, mass in masses.items()]
    act = json.loads(says(text).body)
    act["choices"][0]["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": top}]}
    return Act(json.dumps(act).encode())


@pytest.mark.parametrize(
    ("label", "preference", "outcome"),
    [
        ("[[A>>B]]", 1.0, Outcome.win),
        ("[[A>B]]", 0.75, Outcome.win),
        ("[[A=B]]", 0.5, Outcome.tie),
        ("[[B>A]]", 0.25, Outcome.loss),
        ("[[B>>A]]", 0.0, Outcome.loss),
    ],
)
def test_five_levels_are_preferences_in_quarters(label: str, preference: float, outcome: Outcome) -> None:
    ab, ba = judged(says(label), comparison("ab"), comparison("ba"), template="five-level")
    assert (ab.preference, ab.outcome) == (preference, outcome)
    assert ba.preference == 1 - preference


def test_three_labels_carry_no_preference() -> None:
    assert judged(says("[[A]]"), comparison())[0].preference is None


def test_a_graded_verdict_keeps_the_preference_and_reports_the_label_mass() -> None:
    ab, ba = judged(likely("A", A=0.6, B=0.2), comparison("ab"), comparison("ba"), template="graded")
    assert ab.preference == pytest.approx(0.75)
    assert ba.preference == pytest.approx(0.25)
    assert (ab.outcome, ba.outcome, ab.reason, ab.raw) == (Outcome.win, Outcome.loss, "label mass 0.8000", "A")


def test_too_little_label_mass_stays_unscored() -> None:
    act = likely("Both", Both=0.88, A=0.1, B=0.02)
    (verdict,) = judged(act, comparison(), template="graded")
    assert (verdict.outcome, verdict.preference, verdict.reason) == (
        Outcome.unscored,
        None,
        "label mass 0.12 under 0.5",
    )
    assert judged(act, comparison(), template="graded", label_mass=0.1)[0].outcome is Outcome.win


def test_an_endpoint_that_gives_no_log_probs_is_not_asked_about_everything() -> None:
    with serving(says("A")) as server:
        config = chat_config(model="judge", base_url=server.url, template="graded", concurrency=1)
        verdicts = Chat(config, CONTEXT).judge([comparison()] * 99)
        seen = [next(verdicts)[1] for _ in range(PATIENCE)]
        with pytest.raises(WorkError, match="missing log-prob"):
            next(verdicts)
    assert {(v.outcome, v.reason, v.tokens) for v in seen} == {(Outcome.unscored, "missing log-prob", 3 * 99)}


NO_NUMBER = {"content": [{"token": "A", "top_logprobs": [{"token": "A", "logprob": math.nan}]}]}


@pytest.mark.parametrize(
    "logprobs", [None, {}, {"content": "x"}, {"content": [{"token": "A"}]}, {"content": [1]}, 7, NO_NUMBER]
)
def test_malformed_log_probs_are_missing_ones(logprobs: Any) -> None:
    act = json.loads(says("A").body)
    act["choices"][0]["logprobs"] = logprobs
    with serving(Act(json.dumps(act).encode())) as server:
        judge = Chat(chat_config(model="judge", base_url=server.url, template="graded"), CONTEXT)
        assert next(judge.judge([comparison()]))[1].reason == "missing log-prob"


def test_sampling_is_the_templates_unless_the_judges_settings_say_otherwise() -> None:
    for settings, tokens in (({}, 4), ({"max_tokens": 1}, 1)):
        with serving(likely("A", A=0.9)) as server:
            config = chat_config(model="judge", base_url=server.url, template="graded", **settings)
            list(Chat(config, CONTEXT).judge([comparison()]))
        (body,) = server.bodies
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (tokens, True, 20)


def test_log_probs_are_asked_for_only_where_they_are_read() -> None:
    with serving(says("[[A]]")) as server:
        list(Chat(chat_config(model="judge", base_url=server.url), CONTEXT).judge([comparison()]))
    assert not {"logprobs", "top_logprobs"} & set(server.bodies[0])


@pytest.mark.parametrize("refused", ["temperature", "logprobs"])
def test_a_setting_that_a_model_refuses_is_named_with_the_remedy(refused: str) -> None:
    error = {"error": {"message": "no", "code": "unsupported_value", "type": "t", "param": refused}}
    with pytest.raises(UserError, match=f"refuses {refused}: set the judge's"):
        judged(Act(json.dumps(error).encode(), 400), comparison())


def test_a_model_that_refuses_max_tokens_is_asked_with_max_completion_tokens() -> None:
    error = {"error": {"message": "no", "code": "unsupported_parameter", "type": "t", "param": "max_tokens"}}

    def script(_: int, body: dict[str, Any]) -> Act:
        return Act(json.dumps(error).encode(), 400) if "max_tokens" in body else says("[[A]]")

    with serving(script) as server:
        config = chat_config(model="judge", base_url=server.url, max_tokens=77, concurrency=1)
        verdicts = list(Chat(config, CONTEXT).judge([comparison(), comparison()]))
    assert [verdict.outcome for _, verdict in verdicts] == [Outcome.win] * 2
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 77, 77]


def test_reasoning_in_the_answer_is_not_read() -> None:
    assert judged(says("<think>[[A]]</think>\n[[B]]"), comparison())[0].outcome is Outcome.loss
    assert judged(says("<think>[[A]]", finish="length"), comparison())[0].reason == "too long"


def test_what_a_prompt_lacks_for_the_template_is_said_without_a_question() -> None:
    with serving(says("[[A]]")) as server:
        judge = Chat(chat_config(model="judge", base_url=server.url, template="checklist"), CONTEXT)
        ((_, verdict),) = judge.judge([comparison()])
    assert (verdict.outcome, verdict.reason, server.bodies) == (Outcome.unscored, "no checklist", [])


def test_the_last_turn_alone_is_another_question_and_another_judge() -> None:
    asked = {}
    for turns in (None, "all", "last"):
        with serving(says("[[A]]")) as server:
            judge = Chat(chat_config(model="judge", base_url=server.url, turns=turns), CONTEXT)
            list(judge.judge([comparison(turns=("q1", "q2"))]))
        asked[turns] = ("last answers alone" in server.bodies[0]["messages"][1]["content"], judge.identity())
    assert asked[None] == asked["all"]
    assert asked["last"][0]
    assert asked["last"][1] == {**asked["all"][1], "turns": "last"}


def test_what_decides_a_graded_preference_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def identity(**settings: Any) -> str:
        return json.dumps(Chat(chat_config(model="judge", **settings), CONTEXT).identity())

    graded = [{}, {"label_mass": 0.9}, {"top_logprobs": 5}, {"max_tokens": 1}]
    assert len({identity(template="graded", **settings) for settings in graded}) == 4
    assert identity() == identity(label_mass=0.9)


def test_a_template_that_reads_log_probs_needs_some() -> None:
    with pytest.raises(UserError, match="set top_logprobs to 1 to 20"):
        Chat(chat_config(model="j", base_url="http://localhost/v1", template="graded", top_logprobs=0), CONTEXT)


# --- ratings ---


def test_every_turn_is_rated_and_the_rating_is_their_mean() -> None:
    response = comparison(turns=("q1", "q2")).contestant
    rating = rated([says("Good. [[8]]"), says("Worse. [[5]]")], response)
    assert (rating.value, rating.by_turn) == (6.5, (8.0, 5.0))
    assert (rating.raw, rating.tokens, rating.resolved_model) == (
        "Good. [[8]]\n\nWorse. [[5]]",
        198,
        "judge-2026-01-01",
    )


def test_a_turn_is_rated_by_what_was_said_until_then() -> None:
    response = comparison(turns=("q1", "q2"), reference=("r1", "r2")).contestant
    with serving(says("[[8]]")) as server:
        list(ChatScore(score_config(model="judge", base_url=server.url), CONTEXT).rate([response]))
    first, second = (body["messages"][1]["content"] for body in server.bodies)
    assert all(text in first for text in ("q1", "xq1", "r1"))
    assert not any(text in first for text in ("q2", "r2"))
    assert all(text in second for text in ("q1", "xq1", "r1", "q2", "xq2", "r2"))


def test_the_last_turn_alone_may_be_rated() -> None:
    rating = rated([says("[[5]]")], comparison(turns=("q1", "q2")).contestant, turns="last")
    assert (rating.value, rating.by_turn) == (5.0, ())


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        ([says("[[8]]"), *[says("Hm.")] * 3], "unparsable"),
        ([says("[[8]]"), *[says("[[88]]")] * 3], "unparsable"),
        ([says("[[8]]"), *[says("", refusal="No.")] * 3], "refused"),
        ([says("It is", finish="length")], "too long"),
        ([says("[[8]]"), fails(400, "context_length_exceeded")], "too long"),
    ],
)
def test_a_response_with_one_unrated_turn_has_no_rating(acts: list[Act], reason: str) -> None:
    rating = rated(acts, comparison(turns=("q1", "q2")).contestant)
    assert (rating.value, rating.by_turn, rating.reason) == (None, (), reason)


@pytest.mark.parametrize(
    ("acts", "settings", "reason"),
    [
        ([says("Hm."), says("[[8]]"), fails(500)], {"attempts": 1}, "api error: InternalServerError 500"),
        ([says("Hm."), fails(500)], {"attempts": 1}, "unparsable"),
    ],
    ids=["failure", "failure when asked again"],
)
def test_what_was_paid_for_is_kept_where_the_next_question_fails(
    acts: list[Act], settings: dict[str, Any], reason: str
) -> None:
    rating = rated(acts, comparison(turns=("q1", "q2")).contestant, **settings)
    assert (rating.value, rating.reason) == (None, reason)
    assert rating.tokens == 99 * sum(act.status == 200 for act in acts)


def test_a_limit_at_the_last_responses_last_turn_is_a_limit() -> None:
    with serving(lambda number, _: [says("Hm."), says("Hm."), says("[[8]]")][number]) as server:
        judge = ChatScore(score_config(model="judge", base_url=server.url, max_calls=3), CONTEXT)
        ratings = judge.rate([comparison(turns=("q1", "q2")).contestant])
        _, rating = next(ratings)
        assert (rating.value, rating.reason, rating.tokens) == (None, "--max-calls 3 is reached", 297)
        with pytest.raises(WorkError, match="--max-calls 3 is reached: 1 of 1 questions to judge are owed"):
            next(ratings)


def test_equal_responses_are_asked_about_each() -> None:
    response = comparison().contestant
    with serving(says("[[8]]")) as server:
        list(ChatScore(score_config(model="judge", base_url=server.url), CONTEXT).rate([response, response]))
    assert len(server.bodies) == 2


def test_a_pairwise_template_rates_nothing() -> None:
    with pytest.raises(UserError, match="it is for --judge chat"):
        ChatScore(score_config(model="j", base_url="http://localhost/v1", template="pairwise"), CONTEXT)
