"""Prompts, effects and the power they give, against published figures and a simulated board."""

import math

import numpy as np
import pytest

from dadpo_bench import scoring
from dadpo_bench.errors import UserError


def test_prompts_for_80_per_cent_power() -> None:
    # (1.960 + 0.842)²·(30/3)² = 785 by the normal formula; t asks for two more. statsmodels' TTestPower: 786.81.
    assert scoring.prompts_needed(30, 3) == 787
    assert scoring.prompts_needed(20, -10) == 34  # statsmodels: 33.37
    # 90 % power at 1 %: (2.576 + 1.282)²·100 = 1488.
    assert scoring.prompts_needed(30, 3, power=0.9, alpha=0.01) == pytest.approx(1490, abs=2)


def test_the_detectable_effect_answers_the_same_question() -> None:
    assert scoring.detectable_effect(30, 787) == pytest.approx(3, abs=0.001)
    # A quarter of the prompts: twice the effect, but for t.
    assert scoring.detectable_effect(30, 197) == pytest.approx(6, abs=0.02)


def test_power_is_a_number_however_far_an_effect_lies_off() -> None:
    # scipy 1.17.1's lower tail is NaN at many shifts from 6.5 deviations on (100 prompts, alpha 0.01: at 6.5 already).
    shifts = np.arange(0.1, 20, 0.1)
    for prompts, alpha in ((50, 0.05), (100, 0.05), (100, 0.01), (1000, 0.01)):
        found = [scoring.power_of(math.sqrt(prompts), shift, prompts, alpha=alpha) for shift in shifts]
        assert np.all(np.diff(found) > -1e-9)
        assert found[-1] == pytest.approx(1)
    # (2.626 + 0.845)/√100 ≈ 0.347 deviations by the normal's quantile and t's: 0.80 power at 1 %.
    assert scoring.detectable_effect(1, 100, alpha=0.01) == pytest.approx(0.347, abs=0.003)


def test_sign_flips_reach_5_per_cent_on_six_prompts_at_least() -> None:
    # All alike on 5 prompts: p = 2/2^5 = 0.0625; on 6: 0.03125.
    assert scoring.prompts_needed(0, 3) == scoring.prompts_needed(1, 300) == 6
    assert scoring.detectable_effect(0, 6) == 0
    assert scoring.detectable_effect(0, 5) == scoring.detectable_effect(30, 5) == math.inf
    assert (scoring.power_of(0, 3, 5), scoring.power_of(0, 3, 6), scoring.power_of(0, 0, 6)) == (0, 1, 0)


@pytest.mark.parametrize(
    ("sd", "effect", "settings", "remedy"),
    [
        (30, 0, {}, "least effect that matters"),
        (math.nan, 3, {}, "two prompts"),
        (-1, 3, {}, "two prompts"),
        (30, 3, {"power": 1.0}, "alpha < power"),
        (30, 3, {"alpha": 0.9}, "alpha < power"),
        (30, 1e-4, {}, "too small"),
    ],
)
def test_what_has_no_answer_is_refused(sd: float, effect: float, settings: dict[str, float], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        scoring.prompts_needed(sd, effect, **settings)


def test_the_boards_own_test_has_about_the_power_that_is_promised() -> None:
    # Differences of outcomes in two orders each: mean 0.085, deviation 0.539. Sums of halves cost the sign-flip
    # test a point or two (of whole points on as few as 150 prompts, four).
    values, chances = np.array([-1, -0.5, 0, 0.5, 1]), np.array([0.08, 0.12, 0.5, 0.15, 0.15])
    mean = float(values @ chances)
    prompts = scoring.prompts_needed(100 * math.sqrt(float(values**2 @ chances) - mean**2), 100 * mean)
    gaps = np.random.default_rng(0).choice(values, (400, prompts), p=chances)
    found = np.mean([scoring.sign_flip_p(row, seed=i, draws=500) < 0.05 for i, row in enumerate(gaps)])
    assert found == pytest.approx(0.8, abs=0.05)


@pytest.mark.filterwarnings("error")
def test_an_effect_next_to_nothing_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match="a billion prompts would not do"):
        scoring.prompts_needed(30.0, 1e-200)
