"""A chat model of this process as judge, against plain `model(input_ids)` calls that share no code with it."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import precision, weights_key
from dadpo_bench.types import Comparison, JudgeContext, Message, Order, Outcome, Prompt, Reply, Response, Verdict
from judges import template
from judges.backends import Answer, Unanswered, local
from judges.backends.local import Local, LocalConfig
from judges.chat import Chat
from tests.judges.configs import chat_config
from tests.tiny import CHATML, build_tiny_model

CONTEXT = 4096


@pytest.fixture(scope="module", autouse=True)
def fp32() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "compute_dtype", lambda: torch.float32)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("judges") / "tiny", context=CONTEXT)


class Plain:
    """The model without padding, cache or batch."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(directory)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        shown = [message.model_dump() for message in messages]
        text = self.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @torch.no_grad()
    def log_probs(self, ids: list[int]) -> torch.Tensor:
        found: torch.Tensor = self.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        return found

    def greedy(self, messages: Sequence[Message], count: int) -> list[int]:
        ids = self.ids(messages)
        start = len(ids)
        for _ in range(count):
            ids.append(int(self.log_probs(ids).argmax()))
        return ids[start:]

    def top(self, ids: list[int], count: int) -> dict[str, float]:
        """Log-prob of each text among the likeliest tokens: bytes that are no text alone read the same."""
        masses: dict[str, float] = {}
        values, tokens = self.log_probs(ids).topk(count)
        for value, token in zip(values.tolist(), tokens.tolist(), strict=True):
            text = self.tokenizer.decode([token])
            masses[text] = masses.get(text, 0.0) + math.exp(value)
        return {text: math.log(mass) for text, mass in masses.items()}


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Plain:
    return Plain(tiny)


def backend(directory: Path, **settings: Any) -> Local:
    return Local(LocalConfig(model=str(directory), **settings))


def question(text: str, system: str = "") -> list[Message]:
    said = [Message(role="system", content=system)] if system else []
    return [*said, Message(role="user", content=text)]


QUESTIONS = [question("Tea? " * count, system="Be brief.") for count in (1, 30, 2, 14, 50)]


def answers(asked: Local, *questions: Sequence[Message]) -> list[Any]:
    async def work() -> list[Any]:
        async with asked.opened() as ask:
            return await asyncio.gather(*(ask(one, None) for one in questions), return_exceptions=True)

    return asyncio.run(work())


def comparison(
    order: Order = "ab", prompt: str = "Name three colours.", a: str = "Red.", b: str = "Tea!"
) -> Comparison:
    asked = Prompt(id="p", turns=(prompt,))
    contestant, baseline = (Response(prompt=asked, replies=(Reply(text=text),)) for text in (a, b))
    return Comparison(contestant=contestant, baseline=baseline, order=order)


def judge(directory: Path, **settings: Any) -> Chat:
    defaults = {"model": str(directory), "backend": "local", "template": "graded", "label_mass": 0.0}
    return Chat(chat_config(**(defaults | settings)), JudgeContext(Path, None))


def verdicts(asked: Chat, *comparisons: Comparison) -> list[Verdict]:
    found = dict(asked.judge(comparisons))
    return [found[index] for index in range(len(comparisons))]


def test_log_probs_of_one_token_are_those_of_a_plain_forward_pass(tiny: Path, plain: Plain) -> None:
    found = answers(backend(tiny, max_tokens=1, top_logprobs=20, batch_size=3), *QUESTIONS)
    for asked, answer in zip(QUESTIONS, found, strict=True):
        (token,) = answer.logprobs
        assert token.top == pytest.approx(plain.top(plain.ids(asked), 20), abs=1e-5)
        assert token.text == plain.tokenizer.decode(plain.greedy(asked, 1))


def test_one_token_takes_one_forward_pass_a_batch_and_keeps_no_cache(tiny: Path) -> None:
    asked, passes = backend(tiny, max_tokens=1, top_logprobs=5, batch_size=3), []
    asked._scoring.model.register_forward_hook(
        lambda _model, _args, given, output: passes.append((len(given["input_ids"]), output.past_key_values)),
        with_kwargs=True,
    )
    answers(asked, *QUESTIONS)
    assert passes == [(3, None), (2, None)]


def test_an_answer_is_greedy_and_carries_the_log_probs_of_every_token(tiny: Path, plain: Plain) -> None:
    found = answers(backend(tiny, max_tokens=5, top_logprobs=3), *QUESTIONS)
    for asked, answer in zip(QUESTIONS, found, strict=True):
        ids, said = plain.ids(asked), plain.greedy(asked, 5)
        assert answer.text == plain.tokenizer.decode(said).strip()
        assert (answer.cut, answer.answer_tokens, answer.tokens) == (True, 5, len(ids) + 5)
        for place, token in enumerate(answer.logprobs):
            assert token.top == pytest.approx(plain.top(ids + said[:place], 3), abs=1e-5)


def test_a_drawn_token_has_its_log_prob_beside_the_likeliest(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = itertools.count()
    monkeypatch.setattr(local.secrets, "randbits", lambda _bits: next(seeds))
    found = answers(backend(tiny, max_tokens=1, top_logprobs=1, temperature=5.0), *QUESTIONS * 12)
    drawn = [answer.logprobs[0] for answer in found]
    assert all(token.text in token.top for token in drawn)
    assert max(len(token.top) for token in drawn) == 2  # at such a temperature the likeliest seldom comes
    assert len({token.text for token in drawn[:: len(QUESTIONS)]}) > 1  # the same question, drawn anew


def test_an_answer_without_a_temperature_is_greedy(tiny: Path) -> None:
    greedy, without = (answers(backend(tiny, max_tokens=4, temperature=t), *QUESTIONS) for t in (0.0, None))
    assert [answer.text for answer in greedy] == [answer.text for answer in without]


@pytest.mark.parametrize("size", [2, 5])
def test_in_fp32_the_size_of_a_batch_changes_nothing(tiny: Path, size: int) -> None:
    alone, together = (
        answers(backend(tiny, max_tokens=6, top_logprobs=4, batch_size=n), *QUESTIONS) for n in (1, size)
    )
    for first, second in zip(alone, together, strict=True):
        assert first.text == second.text
        for a, b in zip(first.logprobs, second.logprobs, strict=True):
            assert a.top == pytest.approx(b.top, abs=1e-5)


def ending_with(tiny: Path, folder: Path, token: int) -> Path:
    """The same model, whose replies end with that token."""
    other = Path(shutil.copytree(tiny, folder / "other"))
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": [token]}))
    return other


def test_an_end_of_turn_is_no_part_of_the_answer(tiny: Path, plain: Plain, tmp_path: Path) -> None:
    said = plain.greedy(QUESTIONS[0], 4)
    end = said.index(next(token for token in said[1:] if token not in said[:1]))
    (answer,) = answers(backend(ending_with(tiny, tmp_path, said[end]), max_tokens=9, top_logprobs=2), QUESTIONS[0])
    assert not answer.cut
    assert answer.text == plain.tokenizer.decode(said[:end]).strip()
    assert (len(answer.logprobs), answer.answer_tokens) == (end, end + 1)


def test_an_answer_that_ends_at_once_is_refused_but_its_place_can_be_read(
    tiny: Path, plain: Plain, tmp_path: Path
) -> None:
    other = ending_with(tiny, tmp_path, plain.greedy(QUESTIONS[0], 1)[0])
    (silent,) = answers(backend(other), QUESTIONS[0])
    assert (silent.text, silent.refused, silent.cut, silent.logprobs) == ("", True, False, ())
    (read,) = answers(backend(other, top_logprobs=20), QUESTIONS[0])
    assert (read.text, read.refused) == ("", False)
    assert read.logprobs[0].top == pytest.approx(plain.top(plain.ids(QUESTIONS[0]), 20), abs=1e-5)


def test_who_answered_is_known_by_name_and_content_and_not_by_its_path(tiny: Path) -> None:
    asked = backend(tiny, max_tokens=2)
    (answer,) = answers(asked, QUESTIONS[0])
    assert (answer.model, answer.fingerprint) == ("tiny", weights_key(tiny))
    assert str(tiny.parent) not in f"{asked.identity()} {asked.name} {asked.bill()}"


def test_a_question_that_leaves_no_room_for_the_answer_is_too_long_and_no_other(tiny: Path, plain: Plain) -> None:
    fits = next(n for n in range(CONTEXT, 0, -1) if len(plain.ids(question("!" * n))) <= CONTEXT - 3)
    asked = [question("!" * (fits + 1)), question("!" * fits), QUESTIONS[0]]
    long, longest, short = answers(backend(tiny, max_tokens=3), *asked)
    assert isinstance(long, Unanswered)
    assert (long.reason, long.failure) == ("too long", False)
    assert longest.tokens == CONTEXT
    assert isinstance(short, Answer)
    (verdict,) = verdicts(judge(tiny), comparison(prompt="Tea! " * CONTEXT))
    assert (verdict.outcome, verdict.reason) == (Outcome.unscored, "too long")


def test_a_limit_that_leaves_no_room_for_a_question_is_refused_with_the_remedy(tiny: Path) -> None:
    (error,) = answers(backend(tiny, max_tokens=CONTEXT), QUESTIONS[0])
    assert isinstance(error, UserError)
    assert "set the judge's max_tokens to fewer" in str(error)


def test_no_control_token_of_the_model_comes_from_what_messages_say(tiny: Path, plain: Plain) -> None:
    tokenizer = backend(tiny)._scoring.tokenizer
    control = sorted(tokenizer.raw.all_special_ids)
    attack = "".join(tokenizer.raw.convert_ids_to_tokens(control))
    harmless, attacked = (tokenizer.prompt_ids(question(text, system=text)) for text in ("Hi", attack))
    assert len(control) == 3
    assert [attacked.count(token) for token in control] == [harmless.count(token) for token in control]


def test_questions_of_similar_length_share_a_batch(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[int]] = []
    original = local.continuations

    def noted(model: Any, tokenizer: Any, prompts: Any, *rest: Any) -> Any:
        batches.append([len(ids) for ids in prompts])
        return original(model, tokenizer, prompts, *rest)

    monkeypatch.setattr(local, "continuations", noted)
    short, long = question("Tea?"), question("Tea? " * 60)
    answers(backend(tiny, max_tokens=1, batch_size=4), *[short, long] * 6)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert sum(len(set(batch)) for batch in batches) == 4  # 6 of each: one batch of three is mixed


def fixed_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template.secrets, "token_hex", lambda _: "0123456789abcdef")


def test_a_graded_verdict_is_what_the_plain_model_prefers_in_each_order(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed_fence(monkeypatch)
    asked = judge(leaning(tiny, tmp_path, "A", "B"), max_tokens=1, batch_size=2)
    plain = Plain(tmp_path / "leaning")
    both = [comparison("ab"), comparison("ba")]
    shares = []
    for one in both:
        top = plain.top(plain.ids(asked.fill(one)), 20)
        a, b = (sum(math.exp(top.get(text, -math.inf)) for text in (label, f" {label}")) for label in "AB")
        shares.append(a / (a + b))
    ab, ba = verdicts(asked, *both)
    assert ab.preference == pytest.approx(shares[0], abs=1e-5)
    assert ba.preference == pytest.approx(1 - shares[1], abs=1e-5)
    assert 0 < ab.preference != ba.preference < 1
    assert ab.reason.startswith("label mass 0.")
    assert (ab.resolved_model, ab.answer_tokens) == ("leaning", 1)


def leaning(tiny: Path, folder: Path, *tokens: str) -> Path:
    """The model with an output layer that finds those tokens likely behind the template's last token."""
    from transformers import AutoModelForCausalLM

    plain = Plain(tiny)
    with torch.no_grad():
        state = plain.model.model(torch.tensor([plain.ids(question("Tea?"))])).last_hidden_state[0, -1]
        for weight, token in enumerate(tokens):
            row = plain.tokenizer.convert_tokens_to_ids(token)
            plain.model.lm_head.weight[row] = state / state.norm() * (2 + 0.1 * weight)
    directory = Path(shutil.copytree(tiny, folder / "leaning"))
    plain.model.save_pretrained(directory)
    assert AutoModelForCausalLM.from_pretrained(directory) is not None
    return directory


def test_verdicts_are_the_same_in_every_batch_and_every_time(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed_fence(monkeypatch)
    directory = leaning(tiny, tmp_path, "A", "B")
    asked = [comparison(order, f"Name {n} colours.", a="Red. " * n) for n in (1, 5, 9) for order in ("ab", "ba")]
    once, again, alone = (
        [verdict.preference for verdict in verdicts(judge(directory, max_tokens=2, batch_size=size), *asked)]
        for size in (4, 4, 1)
    )
    assert once == again
    assert once == pytest.approx(alone, abs=1e-5)
    assert len(set(once)) == len(asked)


def test_what_is_in_the_model_is_answered_when_a_run_finishes_and_nothing_else(tiny: Path) -> None:
    asked = judge(tiny, max_tokens=1, batch_size=3)
    assert isinstance(asked.backend, Local)
    model = asked.backend._scoring.model
    passes: list[int] = []

    def finish(_model: Any, _args: Any, given: dict[str, Any]) -> None:
        passes.append(len(given["input_ids"]))
        asked.finish()

    model.register_forward_pre_hook(finish, with_kwargs=True)
    found = list(asked.judge([comparison(prompt=f"Say {n}.") for n in range(40)]))
    assert passes == [3]
    assert len(found) == 3


def test_leaving_ends_a_long_answer_at_its_next_token(tiny: Path) -> None:
    asked = backend(tiny, max_tokens=3000)
    steps: list[int] = []
    reached, left = threading.Event(), threading.Event()

    def held(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 3:
            reached.set()
            left.wait(60)

    asked._scoring.model.register_forward_pre_hook(held)

    async def work() -> None:
        async with asked.opened() as ask:
            waits = asyncio.create_task(ask(QUESTIONS[0], None))  # type: ignore[arg-type]
            await asyncio.get_running_loop().run_in_executor(None, reached.wait, 60)
            assert waits in asked.in_flight
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
            asyncio.get_running_loop().call_soon(left.set)

    asyncio.run(work())
    assert len(steps) == 3
    assert not asked.in_flight


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_model_that_fails_ends_the_work_with_the_remedy(
    tiny: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise failure

    monkeypatch.setattr(local, "continuations", fails)
    with pytest.raises(WorkError, match=r"judge model tiny failed \(.*emory.*\): set the judge's batch_size"):
        verdicts(judge(tiny), comparison(), comparison("ba"))


def test_a_model_that_is_not_there_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model directory"):
        judge(tmp_path / "nowhere").identity()


def test_identity_is_what_decides_an_answer(tiny: Path, tmp_path: Path) -> None:
    def identity(directory: Path, **settings: Any) -> str:
        return json.dumps(judge(directory, **settings).identity(), sort_keys=True)

    moved = Path(shutil.copytree(tiny, tmp_path / "moved"))
    other = build_tiny_model(tmp_path / "other", seed=1, context=CONTEXT)
    assert identity(tiny) == identity(moved) == identity(tiny, batch_size=99)
    changed = [{"chat_template": CHATML + " "}, {"max_tokens": 1}, {"temperature": 0.5}]
    variants = {identity(tiny), identity(other), *(identity(tiny, **settings) for settings in changed)}
    assert len(variants) == 5


def test_a_chat_template_that_does_not_show_the_judges_instructions_is_refused(tiny: Path) -> None:
    deaf = CHATML.replace("{% for message in messages %}", "{% for message in messages if message.role != 'system' %}")
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    for chat_template, reason in ((deaf, "leaves out system messages"), (refusing, "no system")):
        with pytest.raises(UserError, match=rf'{reason}; use a judge template with placement = "user"'):
            verdicts(judge(tiny, chat_template=chat_template), comparison())


def test_the_estimate_loads_nothing_and_the_bill_counts(tiny: Path, plain: Plain) -> None:
    asked = backend(tiny, max_tokens=3)
    assert asked.estimate([question("x" * 45)], 2000) == (
        "2,000 questions, about 20,000 tokens to read (characters / 4.5), at most 6,000 to answer, by a local model"
    )
    assert "model" not in vars(asked._scoring)
    answers(asked, *QUESTIONS)
    read = sum(len(plain.ids(messages)) for messages in QUESTIONS)
    assert asked.bill() == f"5 questions, {read:,} tokens read, 15 answered, on this machine"
