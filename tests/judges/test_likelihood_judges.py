"""The likelihood judges against a plain `model(input_ids)` that shares no code with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dadpo_bench.errors import UserError
from dadpo_bench.models import precision
from dadpo_bench.types import JudgeContext, Prompt, Rating, Reply, Response
from judges import likelihood
from judges.likelihood import GptScore, LikelihoodConfig, Pmi, PmiConfig
from tests.tiny import build_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", autouse=True)
def fp32() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "compute_dtype", lambda: torch.float32)
        yield


@pytest.fixture(scope="module")
def context(tiny: Path) -> JudgeContext:
    return JudgeContext(teacher=lambda: tiny, teacher_chat_template=None)


@pytest.fixture(scope="module")
def pmi(context: JudgeContext) -> Pmi:
    return Pmi(PmiConfig(), context)


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Callable[[str, str], list[float]]:
    """log p(token | rendered prompt, tokens before), nats, one token of the text at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    @torch.no_grad()
    def log_probs(rendered: str, text: str) -> list[float]:
        ids = tokenizer.encode(rendered, add_special_tokens=False)
        found = []
        for token in tokenizer.encode(text, add_special_tokens=False):
            logits: Any = model(torch.tensor([ids])).logits[0, -1].double()
            found.append(float(logits.log_softmax(-1)[token]))
            ids.append(token)
        return found

    log_probs.encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # type: ignore[attr-defined]
    return log_probs


def answer(*replies: str, turns: tuple[str, ...] = ("Name three colours.",), system: str = "") -> Response:
    prompt = Prompt(id="p", turns=turns, system=system)
    return Response(prompt=prompt, replies=tuple(Reply(text=text) for text in replies))


def rate(judge: Any, *responses: Response) -> list[Rating]:
    found = dict(judge.rate(responses))
    return [found[index] for index in range(len(responses))]


USER = "<|im_start|>user\n{}<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
NEUTRAL = USER.format("Say something.") + ASSISTANT


def test_pmi_is_the_mean_gain_over_novel_tokens(pmi: Pmi, plain: Any) -> None:
    prompt, text = "Name three colours.", "Blue is one of three colours."
    given_prompt = plain(USER.format(prompt) + ASSISTANT, text)
    given_neutral = plain(NEUTRAL, text)
    novel = [token not in plain.encode(prompt) for token in plain.encode(text)]
    gains = [a - b for a, b, isnew in zip(given_prompt, given_neutral, novel, strict=True) if isnew]
    assert 0 < len(gains) < len(novel)  # " three", " colours" and "." are old
    assert rate(pmi, answer(text))[0].value == pytest.approx(sum(gains) / len(gains), abs=1e-5)


def test_pmi_of_several_turns_is_one_mean_each_reply_given_its_own_history(pmi: Pmi, plain: Any) -> None:
    turns, replies = (
        ("Name three colours.", "What is the capital of France?"),
        ("Red and blue.", "It is Paris, Red."),
    )
    histories = [
        USER.format(turns[0]) + ASSISTANT,
        USER.format(turns[0]) + ASSISTANT + replies[0] + "<|im_end|>\n" + USER.format(turns[1]) + ASSISTANT,
    ]
    seen: set[int] = set()
    gains = []
    for turn, history, reply in zip(turns, histories, replies, strict=True):
        seen |= set(plain.encode(turn))
        scores = zip(plain(history, reply), plain(NEUTRAL, reply), plain.encode(reply), strict=True)
        gains += [a - b for a, b, token in scores if token not in seen]
        seen |= set(plain.encode(reply))
    assert rate(pmi, answer(*replies, turns=turns))[0].value == pytest.approx(sum(gains) / len(gains), abs=1e-5)


def test_system_text_conditions_but_does_not_make_tokens_old(pmi: Pmi, plain: Any) -> None:
    system, text = "Red", "Red"
    history = f"<|im_start|>system\n{system}<|im_end|>\n" + USER.format("?") + ASSISTANT
    expected = sum(plain(history, text)) - sum(plain(NEUTRAL, text))
    rating = rate(pmi, answer(text, turns=("?",), system=system))[0]
    assert rating.value == pytest.approx(expected / len(plain.encode(text)), abs=1e-5)


def test_gptscore_is_the_mean_over_all_tokens_without_end_of_turn(context: JudgeContext, plain: Any) -> None:
    text = "Red, green and blue"
    scores = plain(USER.format("Name three colours.") + ASSISTANT, text)
    judge = GptScore(LikelihoodConfig(), context)
    assert rate(judge, answer(text))[0].value == pytest.approx(sum(scores) / len(scores), abs=1e-5)


@pytest.mark.parametrize("text", ["", "Name three colours.", "Name colours. three"])
def test_an_empty_response_and_an_echo_add_nothing(pmi: Pmi, text: str) -> None:
    assert rate(pmi, answer(text))[0] == Rating(value=0.0)


def test_a_response_of_two_echoes_scores_zero(pmi: Pmi) -> None:
    turns = ("Name three colours.", "Write a short list.")
    assert rate(pmi, answer(*turns, turns=turns))[0] == Rating(value=0.0)


def test_an_empty_response_has_no_gptscore(context: JudgeContext) -> None:
    assert rate(GptScore(LikelihoodConfig(), context), answer(""))[0] == Rating(value=None, reason="no token to score")


def test_equal_responses_rate_exactly_the_same_wherever_they_stand(pmi: Pmi) -> None:
    others = [answer("blue " * n, turns=(f"Write {n}.",)) for n in range(1, 60)]
    same = answer("Red, green and blue " * 40)
    ratings = rate(pmi, same, *others, same, answer("Red"), same)
    assert len({ratings[0].value, ratings[60].value, ratings[62].value}) == 1


def test_sampled_ids_of_another_model_are_not_used(pmi: Pmi) -> None:
    sampled = Response(prompt=answer("x").prompt, replies=(Reply(text="Red", token_ids=(7, 8, 9)),))
    first, second = rate(pmi, sampled, answer("Red"))
    assert first == second


def test_control_tokens_in_a_response_are_text(pmi: Pmi) -> None:
    ids = pmi.text_ids("<|im_end|>\n<|im_start|>user\nHello")
    assert not set(ids) & set(pmi._scoring.tokenizer.raw.all_special_ids)
    assert rate(pmi, answer("<|im_end|>"))[0].value is not None


def test_a_huge_response_costs_no_more_than_its_first_tokens(tiny: Path, plain: Any) -> None:
    judge = Pmi(PmiConfig(max_tokens=16), JudgeContext(lambda: tiny, None))
    text = "Zebra quick, " * 10_000
    (term, neutral) = judge.terms(answer(text, turns=("Say " * 500,)))
    assert len(term.reply) == len(neutral.reply) == len(term.prompt) == 16
    assert list(term.prompt) == plain.encode(USER.format("Say " * 500) + ASSISTANT)[-16:]
    assert rate(judge, answer(text))[0].value is not None


def test_a_rating_does_not_depend_on_what_else_is_rated(pmi: Pmi) -> None:
    responses = [answer("Red and blue.", turns=(f"Write {n}.",)) for n in range(5)]
    together = rate(pmi, *responses)
    assert together == [rate(pmi, response)[0] for response in responses]
    assert together[::-1] == rate(pmi, *responses[::-1])


def test_ratings_come_one_by_one(pmi: Pmi, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = pmi.rate([answer("Red"), answer("Blue")])
    next(ratings)
    monkeypatch.setattr(likelihood, "token_scores", None)
    with pytest.raises(TypeError):
        next(ratings)


def test_a_log_prob_that_is_not_finite_leaves_the_response_unscored(pmi: Pmi, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_model: Any, branchings: Any, _precision: Any) -> Any:
        return [[[float("nan")] * len(y) for y in b.continuations] for b in branchings]

    monkeypatch.setattr(likelihood, "token_scores", broken)
    assert rate(pmi, answer("Red"))[0] == Rating(value=None, reason="missing log-prob")


def test_the_model_is_loaded_at_the_first_rating_only(context: JudgeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    judge = Pmi(PmiConfig(), context)
    load = judge._scoring._load
    monkeypatch.setattr(judge._scoring, "_load", lambda *args: loads.append(args) or load(*args))
    judge.identity()
    assert not loads
    rate(judge, answer("Red"))
    rate(judge, answer("Blue"))
    assert len(loads) == 1


def test_identity_is_what_decides_a_rating(tiny: Path, tmp_path: Path) -> None:
    def identity(config: PmiConfig, template: str | None = None) -> str:
        return json.dumps(Pmi(config, JudgeContext(lambda: tiny, template)).identity())

    assert identity(PmiConfig()) == identity(PmiConfig(model=str(tiny)))  # where the model lies does not matter
    assert str(tiny) not in identity(PmiConfig(model=str(tiny)))
    other = build_tiny_model(tmp_path, seed=1)
    variants = {
        identity(PmiConfig()),
        identity(PmiConfig(neutral_prompt="Hello.")),
        identity(PmiConfig(max_tokens=7)),
        identity(PmiConfig(model=str(other))),
        identity(PmiConfig(), "{{ messages[0].content }}"),
        json.dumps(GptScore(LikelihoodConfig(), JudgeContext(lambda: tiny, None)).identity()),
    }
    assert len(variants) == 6


def test_a_context_too_short_for_the_truncation_is_refused_with_the_remedy(tiny: Path) -> None:
    judge = Pmi(PmiConfig(max_tokens=1025), JudgeContext(lambda: tiny, None))
    with pytest.raises(UserError, match="set max_tokens to at most 1024"):
        rate(judge, answer("Red"))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=8))
def test_every_response_gets_one_rating_whatever_its_text(pmi: Pmi, texts: list[str]) -> None:
    found = list(pmi.rate([answer(text, turns=("Name three colours.",)) for text in texts]))
    assert sorted(index for index, _ in found) == list(range(len(texts)))
    assert all(rating.value is not None for _, rating in found)
