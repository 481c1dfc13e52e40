"""The losses of the methods beside daDPO: worked by hand, and as what they become in a known case."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dadpo_bench.types import Pair
from trainers.distillm2 import contrastive_divergence
from trainers.divergences import divergence
from trainers.dpkd import dpkd_loss
from trainers.dpo import dpo_loss
from trainers.on_policy_kd import policy_gradient_losses
from trainers.preference import Scores

ROOT = Path(__file__).parents[2]
IPO = ROOT / "examples" / "ipo" / "ipo_method.py"


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pair(chosen: float, rejected: float) -> Pair:
    return Pair(tensor(chosen), tensor(rejected))


def random_logits(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_dpkd_loss_of_one_pair_worked_by_hand() -> None:
    scores = Scores(policy=pair(-10, -14), signals={"teacher": pair(-9, -20)}, tokens=pair(5, 8))
    losses, chosen, rejected = dpkd_loss(scores, 2.0)
    # r⁺ = 2·(−10+9)/5 = −0.4;  r⁻ = 2·(−14+20)/8 = 1.5;  −log σ(−0.4 − 1.5) = log(1 + e^1.9)
    assert chosen.item() == pytest.approx(-0.4)
    assert rejected.item() == pytest.approx(1.5)
    assert losses.item() == pytest.approx(math.log1p(math.exp(1.9)))


def test_dpkd_of_equally_long_responses_is_dpo_against_the_teacher() -> None:
    policy, teacher = (Pair(*(-50 * random_logits(1, seed)[0].exp() for seed in seeds)) for seeds in ((0, 1), (2, 3)))
    tokens = Pair(*[torch.full((7,), 12)] * 2)
    ours = dpkd_loss(Scores(policy, {"teacher": teacher}, tokens), 3.0)
    for own, theirs in zip(ours, dpo_loss(*policy, *teacher, 3.0 / 12), strict=True):
        torch.testing.assert_close(own, theirs)


def test_contrastive_divergence_of_two_coins_worked_by_hand() -> None:
    student, teacher = (torch.log(tensor(*p)).expand(2, 2) for p in ((0.5, 0.5), (0.9, 0.1)))
    chosen, rejected = contrastive_divergence(student, teacher, torch.tensor([False, True]), 0.1)
    # Mixture 0.1·(0.9, 0.1) + 0.9·(0.5, 0.5) = (0.54, 0.46):
    # 0.9·ln(0.9/0.54) + 0.1·ln(0.1/0.46) = 0.459743 − 0.152606 = 0.307137
    assert chosen.item() == pytest.approx(0.307137, abs=1e-6)
    # Mixture 0.1·(0.5, 0.5) + 0.9·(0.9, 0.1) = (0.86, 0.14):
    # 0.5·ln(0.5/0.86) + 0.5·ln(0.5/0.14) = −0.271162 + 0.636483 = 0.365321
    assert rejected.item() == pytest.approx(0.365321, abs=1e-6)


def test_contrastive_divergence_without_skew_is_kl_and_reverse_kl() -> None:
    student, teacher = (random_logits(6, seed).log_softmax(-1) for seed in (0, 1))
    rejected = torch.tensor([False, True, True, False, True, False])
    plain = torch.where(
        rejected, divergence(student, teacher, "reverse_kl"), divergence(student, teacher, "forward_kl")
    )
    torch.testing.assert_close(contrastive_divergence(student, teacher, rejected, 1e-9), plain, rtol=1e-6, atol=1e-7)


def test_policy_gradient_of_two_coins_worked_by_hand() -> None:
    policy = torch.log(tensor(0.5, 0.5)).requires_grad_()
    losses = policy_gradient_losses(policy, torch.log(tensor(0.9, 0.1)))
    losses.sum().backward()
    # ln(0.5/0.9) = −0.587787: the teacher likes the first side better than the student does, ln(0.5/0.1) = 1.609438.
    expected = tensor(-0.587787, 1.609438)
    torch.testing.assert_close(losses.detach(), expected, rtol=0, atol=1e-6)
    assert policy.grad is not None
    torch.testing.assert_close(policy.grad, expected, rtol=0, atol=1e-6)


def test_the_expected_policy_gradient_is_that_of_the_reverse_kl() -> None:
    """Over all tokens with the student's own probabilities: nothing is sampled, so nothing is approximate."""
    teacher = random_logits(1, 1).log_softmax(-1)[0]
    sampled, exact = (random_logits(1, 0)[0].requires_grad_() for _ in "ab")
    policy = sampled.log_softmax(-1)
    expectation = (policy.detach().exp() * policy_gradient_losses(policy, teacher)).sum()
    expectation.backward()
    kl = divergence(exact[None], teacher[None], "reverse_kl").sum()
    kl.backward()
    torch.testing.assert_close(expectation.detach(), kl.detach())
    assert sampled.grad is not None
    torch.testing.assert_close(sampled.grad, exact.grad)


@pytest.fixture(scope="module")
def ipo() -> Any:
    spec = importlib.util.spec_from_file_location("ipo_method", IPO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ipo_loss_of_one_pair_worked_by_hand(ipo: Any) -> None:
    losses, chosen, rejected = ipo.ipo_loss(pair(-10, -14), pair(-12, -13), 0.5)
    # h = (−10+12) − (−14+13) = 3;  (3 − 1/(2·0.5))² = 4;  rewards 0.5·2 and 0.5·(−1)
    assert losses.item() == pytest.approx(4)
    assert (chosen.item(), rejected.item()) == pytest.approx((1, -0.5))
    # Drawn to 1/(2β) = 3, where the loss is 0.
    assert ipo.ipo_loss(pair(-10, -14), pair(-12, -13), 1 / 6)[0].item() == pytest.approx(0)


def test_the_worked_example_of_the_readme_is_the_file() -> None:
    source = IPO.read_text()
    assert f"```python\n{source}```" in (ROOT / "README.md").read_text()
    assert len(source.splitlines()) < 40
