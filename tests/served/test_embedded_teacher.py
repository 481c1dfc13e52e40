"""The served teacher on a real model: the embedded one, by both protocols, against itself at hand."""

from __future__ import annotations

import pytest

from dadpo_bench.errors import UserError
from dadpo_bench.models import chat_tokenizer, load_model, sequence_log_probs
from dadpo_bench.models.embedded import NAME, embedded_teacher
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.parity import check_parity
from dadpo_bench.stages.served_signals import collect_served_signals
from dadpo_bench.stages.signals import Scored
from dadpo_bench.types import Continuation
from tests.served.conftest import Served
from tests.served.teacher_server import FP32, teaching

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("protocol", ["vllm", "sglang"])
def test_its_signals_are_those_of_the_model_at_hand(
    protocol: str, served: Served, bench: Bench, pairs: list[Scored]
) -> None:
    try:
        directory = embedded_teacher()
    except UserError as error:
        pytest.skip(str(error))
    tokenizer = chat_tokenizer(str(directory))
    branchings = [tokenizer.branching(p.prompt, [p.chosen, p.rejected], sampled=False) for p in pairs]
    here = sequence_log_probs(load_model(directory, FP32), branchings, FP32)
    found: dict[str, float] = {}
    with teaching(directory) as server:
        model = served(server, protocol=protocol, tokenizer=NAME, weights=NAME)

        def gate(continuations: list[Continuation]) -> None:
            for _, figures in check_parity(model, tokenizer, continuations, [p.prompt for p in pairs]):
                found[figures["kind"]] = figures.get("mean", 0.0)

        there = collect_served_signals(
            bench, model, tokenizer, pairs, sampled=False, label="signals", before=lambda asked: gate(list(asked))
        )
    assert found == pytest.approx({"template": 0, "again": 0, "weights": 0}, abs=1e-4)
    for theirs, ours in zip(there, here, strict=True):
        for total, signal in zip(theirs, ours, strict=True):
            assert total == pytest.approx(signal.total, abs=1e-4 * signal.tokens)
