"""The KL columns: exact sums over the vocabulary, on response positions alone."""

from pathlib import Path

import pytest
import torch

from dadpo_bench.models import Branching, Precision, load_model
from dadpo_bench.models.divergence import kl_divergence
from tests.tiny import build_tiny_model

FP32 = Precision(torch.float32, torch.float32)
DRAWN = [Branching([1, 50, 60], [[70, 80, 2]]), Branching([1, 90], [[30]])]
SAMPLES = [(drawn, drawn) for drawn in DRAWN]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tuple(build_tiny_model(tmp_path_factory.mktemp(str(seed)), seed=seed) for seed in (0, 1))  # type: ignore[return-value]


def test_kl_agrees_with_a_plain_forward_pass(pair: tuple[Path, Path]) -> None:
    p, q = (load_model(d, FP32) for d in pair)
    expected = 0.0
    for sample in DRAWN:
        ids = torch.tensor([[*sample.prompt, *sample.continuations[0]]])
        with torch.no_grad():
            log_p, log_q = (m(ids).logits[0, len(sample.prompt) - 1 : -1].log_softmax(-1) for m in (p, q))
        expected += float((log_p.exp() * (log_p - log_q)).sum())
    total = kl_divergence(p, q, SAMPLES, FP32)
    assert total.tokens == 4
    assert total.nats == pytest.approx(expected, rel=1e-4)


def test_a_model_has_no_divergence_from_itself(pair: tuple[Path, Path]) -> None:
    p = load_model(pair[0], FP32)
    assert kl_divergence(p, p, SAMPLES, FP32).nats == 0


def test_the_two_directions_differ(pair: tuple[Path, Path]) -> None:
    p, q = (load_model(d, FP32) for d in pair)
    assert kl_divergence(p, q, SAMPLES, FP32) != kl_divergence(q, p, SAMPLES, FP32)


def test_each_model_reads_the_prompt_as_its_own_template_renders_it(pair: tuple[Path, Path]) -> None:
    p, q = (load_model(d, FP32) for d in pair)
    theirs = Branching([1, 7, 8, 9], DRAWN[0].continuations)
    both = []
    for model, sample in ((p, DRAWN[0]), (q, theirs)):
        ids = torch.tensor([[*sample.prompt, *sample.continuations[0]]])
        with torch.no_grad():
            both.append(model(ids).logits[0, len(sample.prompt) - 1 : -1].log_softmax(-1))
    expected = float((both[0].exp() * (both[0] - both[1])).sum())
    assert kl_divergence(p, q, [(DRAWN[0], theirs)], FP32).nats == pytest.approx(expected, rel=1e-4)
