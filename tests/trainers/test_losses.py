"""The losses are pure functions of sequence log-probs: checked by hand, by identities and by independent figures."""

import json
import math
from pathlib import Path

import pytest
import torch

from trainers.dadpo import dadpo_loss
from trainers.dpo import dpo_loss
from trainers.kd import divergence

EXPECTED = Path(__file__).parents[3] / "shared" / "oracle" / "training" / "expected.json"


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_log_probs(rows: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [-200 * torch.rand(rows, generator=generator, dtype=torch.float64) for _ in range(6)]


def test_dadpo_loss_of_one_pair_worked_by_hand() -> None:
    losses, chosen, rejected = dadpo_loss(
        tensor(-10), tensor(-14), tensor(-12), tensor(-13), tensor(-9), tensor(-20), 0.1, 0.2
    )
    # r⁺ = 0.1·(−10+12) + 0.2·(−10+9) = 0.2 − 0.2 = 0;  r⁻ = 0.1·(−14+13) + 0.2·(−14+20) = −0.1 + 1.2 = 1.1
    assert chosen.item() == pytest.approx(0.0, abs=1e-12)
    assert rejected.item() == pytest.approx(1.1)
    # −log σ(0 − 1.1) = log(1 + e^1.1)
    assert losses.item() == pytest.approx(math.log1p(math.exp(1.1)))


def test_without_the_teacher_anchor_dadpo_is_dpo() -> None:
    pc, pr, rc, rr, tc, tr = random_log_probs()
    for ours, theirs in zip(dadpo_loss(pc, pr, rc, rr, tc, tr, 0.3, 0.0), dpo_loss(pc, pr, rc, rr, 0.3), strict=True):
        assert torch.equal(ours, theirs)


def test_dadpo_is_dpo_with_the_mixed_reference() -> None:
    pc, pr, rc, rr, tc, tr = random_log_probs()
    b1, b2 = 0.1, 0.3
    mixed = [(b1 * ref + b2 * te) / (b1 + b2) for ref, te in ((rc, tc), (rr, tr))]
    torch.testing.assert_close(dadpo_loss(pc, pr, rc, rr, tc, tr, b1, b2)[0], dpo_loss(pc, pr, *mixed, b1 + b2)[0])


def test_gradient_is_the_total_strength_times_the_error_probability() -> None:
    pc, pr, *rest = random_log_probs()
    pc.requires_grad_()
    pr.requires_grad_()
    losses, chosen, rejected = dadpo_loss(pc, pr, *rest, 0.1, 0.2)
    losses.sum().backward()
    expected = -0.3 * torch.sigmoid(-(chosen - rejected)).detach()
    torch.testing.assert_close(pc.grad, expected)
    torch.testing.assert_close(pr.grad, -expected)


def test_a_policy_at_its_reference_has_loss_ln_two_without_a_teacher() -> None:
    pc, pr, *_, tc, tr = random_log_probs()
    losses, _, _ = dadpo_loss(pc, pr, pc, pr, tc, tr, 0.1, 0.0)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)))


def test_a_policy_at_its_reference_is_measured_against_the_teacher_alone() -> None:
    pc, pr, *_, tc, tr = random_log_probs()
    losses, _, _ = dadpo_loss(pc, pr, pc, pr, tc, tr, 0.1, 0.2)
    torch.testing.assert_close(losses, -torch.nn.functional.logsigmoid(0.2 * ((pc - pr) - (tc - tr))))


def test_divergences_of_two_coins_worked_by_hand() -> None:
    student = torch.log(tensor(0.5, 0.5))[None]
    teacher = torch.log(tensor(0.9, 0.1))[None]
    # KL(teacher‖student) = 0.9·ln(0.9/0.5) + 0.1·ln(0.1/0.5) = 0.5290 − 0.1609 = 0.3681
    assert divergence(student, teacher, "forward_kl").item() == pytest.approx(0.36806, abs=1e-5)
    # KL(student‖teacher) = 0.5·ln(0.5/0.9) + 0.5·ln(0.5/0.1) = −0.2939 + 0.8047 = 0.5108
    assert divergence(student, teacher, "reverse_kl").item() == pytest.approx(0.51083, abs=1e-5)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl"])
def test_a_student_equal_to_its_teacher_has_no_divergence(kind: str) -> None:
    logits = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert divergence(logits, logits + 3.0, kind).abs().max() < 1e-12


needs_oracle = pytest.mark.skipif(not EXPECTED.is_file(), reason="the independent figures are not beside the project")


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads(EXPECTED.read_text())


@needs_oracle
def test_losses_gradients_and_rewards_agree_with_independent_figures(expected: dict) -> None:
    given = {k: torch.tensor(v, dtype=torch.float64) for k, v in expected["sequence_log_probs"].items()}
    for case in expected["preference"]:
        pc = given["policy_chosen"].clone().requires_grad_()
        pr = given["policy_rejected"].clone().requires_grad_()
        frozen = [given[f"{who}_{side}"] for who in ("reference", "teacher") for side in ("chosen", "rejected")]
        losses, chosen, rejected = dadpo_loss(pc, pr, *frozen, case["beta_reference"], case["beta_teacher"])
        losses.sum().backward()
        for ours, name in (
            (losses, "loss"),
            (chosen, "reward_chosen"),
            (rejected, "reward_rejected"),
            (pc.grad, "grad_policy_chosen"),
            (pr.grad, "grad_policy_rejected"),
        ):
            torch.testing.assert_close(ours.detach(), tensor(*case[name]), rtol=1e-9, atol=1e-9)


@needs_oracle
def test_divergences_agree_with_independent_figures(expected: dict) -> None:
    student, teacher = (torch.tensor(expected[f"{who}_logits"], dtype=torch.float64) for who in ("student", "teacher"))
    names = {
        "forward_kl": "forward_kl",
        "reverse_kl": "reverse_kl",
        "jsd": "jsd_beta_half",
        "skew_forward_kl": "skew_forward_kl_alpha_0_1",
        "skew_reverse_kl": "skew_reverse_kl_alpha_0_1",
    }
    for case in expected["distillation"]:
        for kind, name in names.items():
            ours = divergence(student, teacher, kind, temperature=case["temperature"])
            torch.testing.assert_close(ours, tensor(*case[name]), rtol=1e-9, atol=1e-9)


@needs_oracle
def test_minimising_the_population_loss_gives_the_closed_form(expected: dict) -> None:
    case = expected["closed_form"]
    reward, reference, teacher = (tensor(*case[k]) for k in ("reward", "log_reference", "log_teacher"))
    b1, b2 = case["beta_reference"], case["beta_teacher"]
    first, second = (index.flatten() for index in torch.meshgrid(*[torch.arange(len(reward))] * 2, indexing="ij"))
    preferred = torch.sigmoid(reward[first] - reward[second])
    theta = torch.zeros_like(reward, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        policy = theta.log_softmax(0)
        losses, _, _ = dadpo_loss(
            policy[first], policy[second], reference[first], reference[second], teacher[first], teacher[second], b1, b2
        )
        (preferred * losses).sum().backward()
        return (preferred * losses).sum().detach()

    optimiser.step(closure)
    torch.testing.assert_close(theta.log_softmax(0).detach(), tensor(*case["log_optimal_policy"]), rtol=0, atol=1e-6)
