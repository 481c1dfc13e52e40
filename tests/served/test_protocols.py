"""What vLLM and SGLang are sent, what is made of their answers, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.models import Branching, chat_tokenizer, load_model, token_scores
from dadpo_bench.stages.served_signals import batches_of, token_scores_at
from dadpo_bench.stages.signals import Scored
from dadpo_bench.types import Continuation
from tests.served.conftest import Served
from tests.served.teacher_server import FP32, MODEL, teaching

PROTOCOLS = pytest.mark.parametrize("protocol", ["vllm", "sglang"])


@pytest.fixture
def asked(directory: Path, pairs: list[Scored]) -> list[Continuation]:
    tokenizer = chat_tokenizer(str(directory))
    branchings = [tokenizer.branching(p.prompt, [p.chosen, p.rejected], sampled=False) for p in pairs]
    return [Continuation(b.prompt, ids) for b in branchings for ids in b.continuations]


def local(directory: Path, asked: list[Continuation]) -> list[list[float]]:
    branchings = [Branching(one.prompt, [one.ids]) for one in asked]
    return [row[0] for row in token_scores(load_model(directory, FP32), branchings, FP32)]


@PROTOCOLS
def test_every_token_has_the_log_prob_that_the_same_weights_give_it_here(
    protocol: str, directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory) as server:
        found = token_scores_at(served(server, protocol=protocol), batches_of(asked, 100))
    assert len(server.asked) > 2
    for theirs, ours in zip(found, local(directory, asked), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)


def test_vllm_is_asked_for_no_likelier_tokens_so_that_nothing_is_cut_off(
    directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory) as server:
        token_scores_at(served(server), [asked[:2]])
    assert server.bodies("/v1/completions") == [
        {
            "model": MODEL,
            "prompt": [[*one.prompt, *one.ids] for one in asked[:2]],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
    ]


def test_sglang_is_asked_from_one_position_early(directory: Path, asked: list[Continuation], served: Served) -> None:
    with teaching(directory) as server:
        token_scores_at(served(server, protocol="sglang"), [asked[:2]])
    assert server.bodies("/generate") == [
        {
            "input_ids": [[*one.prompt, *one.ids] for one in asked[:2]],
            "sampling_params": {"temperature": 0, "max_new_tokens": 0},
            "return_logprob": True,
            "logprob_start_len": [len(one.prompt) - 1 for one in asked[:2]],
        }
    ]


def test_an_endpoint_may_be_written_with_the_apis_path_or_without(
    directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory) as server:
        for protocol in ("vllm", "sglang"):
            for url in (server.url, f"{server.url}/", f"{server.url}/v1"):
                token_scores_at(served(url, protocol=protocol), [asked[:1]])
        assert server.scored == 6


def test_batches_keep_their_order_and_hold_at_most_so_many_tokens() -> None:
    sizes = [30, 30, 50, 120, 10]
    asked = [Continuation([0] * (size - 1), [1]) for size in sizes]
    assert [[one.tokens for one in batch] for batch in batches_of(asked, 100)] == [[30, 30], [50], [120], [10]]
    assert batches_of([], 100) == []


@PROTOCOLS
@pytest.mark.parametrize(
    ("knobs", "told"),
    [({"lost_tokens": 1}, "it cuts sequences"), ({"other_ids": True}, "other token ids than it was sent")],
    ids=["cut", "other ids"],
)
def test_an_answer_to_something_else_is_refused_at_once(
    protocol: str, knobs: dict[str, Any], told: str, directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory, **knobs) as server, pytest.raises(UserError, match=told):
        token_scores_at(served(server, protocol=protocol), [asked])
    assert len(server.asked) == 1


@PROTOCOLS
def test_a_sequence_that_is_too_long_for_the_server_is_told_with_its_length(
    protocol: str, directory: Path, asked: list[Continuation], served: Served
) -> None:
    longest = max(one.tokens for one in asked)
    with teaching(directory, context=20) as server, pytest.raises(UserError, match=f"up to {longest} tokens.*too long"):
        token_scores_at(served(server, protocol=protocol), [asked])


def test_a_server_without_prompt_log_probs_is_told_so(
    directory: Path, asked: list[Continuation], served: Served
) -> None:
    with (
        teaching(directory, prompt_logprobs=False) as server,
        pytest.raises(UserError, match="no prompt_logprobs: is it vLLM"),
    ):
        token_scores_at(served(server), [asked])


@PROTOCOLS
def test_a_token_without_a_finite_log_prob_is_refused(
    protocol: str, directory: Path, asked: list[Continuation], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with teaching(directory) as server:
        never = float("-inf") if protocol == "vllm" else None  # SGLang's JSON has no infinity
        scores = server._scores
        monkeypatch.setattr(server, "_scores", lambda *asked: [[*row[:-1], never] for row in scores(*asked)])
        with pytest.raises(UserError, match="no finite log-prob"):
            token_scores_at(served(server, protocol=protocol), [asked])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(
    status: int, directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory, statuses=[status]) as server:
        assert len(token_scores_at(served(server), [asked])) == len(asked)
    assert len(server.asked) == 2


def test_a_request_that_is_refused_names_what_to_check(
    directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory, statuses=[400]) as server, pytest.raises(UserError, match=r"refuses .* \(400\): check"):
        token_scores_at(served(server), [asked])
    with teaching(directory) as server, pytest.raises(UserError, match="no model 'other'"):
        token_scores_at(served(server, model="other"), [asked])


def test_servers_that_are_all_down_end_the_work_with_their_addresses(
    directory: Path, asked: list[Continuation], served: Served
) -> None:
    with teaching(directory, healthy=False) as sick, teaching(directory, healthy=False) as other:
        told = rf"no teacher server is up \(127.0.0.1:{sick.port}, 127.0.0.1:{other.port}\).*same command again"
        with pytest.raises(WorkError, match=told):
            token_scores_at(served(sick, other), [asked])
    assert not sick.asked
    with pytest.raises(WorkError, match="no teacher server is up"):
        token_scores_at(served("http://127.0.0.1:9"), [asked])
