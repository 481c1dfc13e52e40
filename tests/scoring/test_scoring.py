"""Outcomes, intervals and tests, with the arithmetic beside the assertion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dadpo_bench import scoring

NAN = np.nan


def test_a_prompts_outcome_is_the_mean_over_its_scored_orders() -> None:
    orders = np.array([[1.0, 0.0], [1.0, NAN], [0.5, 1.0], [NAN, NAN]])
    np.testing.assert_array_equal(scoring.prompt_outcomes(orders), [0.5, 1.0, 0.75, NAN])


def test_win_tie_and_loss_are_counted_by_the_side_of_one_half() -> None:
    # Above ½: 0.75 and 1; at ½: one; below: 0. Of four scored prompts.
    assert scoring.win_tie_loss(np.array([0.75, 1.0, 0.5, 0.0, NAN])) == (50.0, 25.0, 25.0)


def test_flips_are_verdicts_on_opposite_sides_and_a_tie_is_on_neither() -> None:
    orders = np.array([[1.0, 0.0], [1.0, 1.0], [0.5, 0.0], [NAN, 1.0]])
    # One of three prompts with two scored orders.
    assert scoring.flip_rate(orders) == pytest.approx(100 / 3)


def test_there_is_no_flip_rate_for_one_order() -> None:
    assert scoring.flip_rate(np.array([[1.0], [0.0]])) is None
    assert scoring.flip_rate(np.array([[1.0, NAN]])) is None


def test_standard_error_worked_by_hand() -> None:
    # Mean ½; deviations ±½: variance 4·¼/3 = 1/3; √(1/3)/√4 = 0.28868
    assert scoring.standard_error(np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(28.868, abs=1e-3)
    assert scoring.standard_error(np.array([1.0])) is None


def test_holm_worked_by_hand() -> None:
    # Sorted: 0.01·4 = 0.04, 0.02·3 = 0.06, 0.03·2 = 0.06, 0.9·1 = 0.9
    assert scoring.holm([0.03, 0.9, 0.01, 0.02]) == pytest.approx([0.06, 0.9, 0.04, 0.06])


def test_sign_flips_of_few_gaps_are_enumerated() -> None:
    # All three equal: 2 of 8 flips reach ±3.
    assert scoring.sign_flip_p(np.array([1.0, 1.0, 1.0]), seed=0) == 0.25
    # One-sided, all negative: 1 of 8.
    assert scoring.sign_flip_p(np.array([-1.0, -1.0, -1.0]), seed=0, alternative="less") == 0.125
    assert scoring.sign_flip_p(np.zeros(5), seed=0) == 1.0


def test_sampled_sign_flips_agree_with_enumerated_ones() -> None:
    gaps = np.random.default_rng(0).normal(0.4, 1, 12)
    exact = scoring.sign_flip_p(gaps, seed=0)
    sampled = scoring.sign_flip_p(np.append(gaps, 1e-12), seed=0)
    assert sampled == pytest.approx(exact, abs=0.02)


def test_a_summary_of_two_seeds_averages_each_prompt_first() -> None:
    orders = np.array([[[1.0], [0.0], [1.0]], [[0.0], [0.0], [NAN]]])
    summary = scoring.summarise(orders, scoring.bootstrap_counts(3, 200, 0), seed=0)
    # Prompts: (1+0)/2 = ½ tie, 0 loss, 1 win.
    assert (summary.seeds, summary.prompts, summary.unscored) == (2, 3, 1)
    assert summary.win_rate == pytest.approx(50)
    assert (summary.win_share, summary.tie_share, summary.loss_share) == pytest.approx((100 / 3,) * 3)
    assert summary.preference_rate == pytest.approx(0)
    assert summary.per_seed == pytest.approx((200 / 3, 0))


def test_nothing_scored_is_no_figure() -> None:
    summary = scoring.summarise(np.full((1, 3, 2), NAN), scoring.bootstrap_counts(3, 50, 0), seed=0)
    assert (summary.prompts, summary.unscored, summary.win_rate) == (0, 3, None)


def test_half_scored_prompts_are_counted() -> None:
    orders = np.array([[[1.0, NAN], [1.0, 1.0]]])
    assert scoring.summarise(orders, scoring.bootstrap_counts(2, 50, 0), seed=0).half_scored == 1


def test_a_paired_difference_uses_shared_prompts_only() -> None:
    first = np.array([[1.0, 1.0, 0.0, NAN]])
    second = np.array([[0.0, 1.0, NAN, 1.0]])
    found = scoring.paired_difference(first, second, scoring.bootstrap_counts(4, 500, 0), seed=0)
    assert found is not None
    assert found.prompts == 2
    assert found.estimate == pytest.approx(50)  # (1 + 0) / 2


def test_the_same_data_and_seed_give_the_same_interval() -> None:
    outcomes = np.random.default_rng(1).random((3, 40))
    runs = [scoring.interval(outcomes, scoring.bootstrap_counts(40, 1000, 7), 7) for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_draw_is_a_resample_of_all_prompts() -> None:
    counts = scoring.bootstrap_counts(17, 100, 3)
    assert (counts.sum(1) == 17).all()
    assert counts.std() > 0


def test_crossed_intervals_are_wider_where_seeds_differ() -> None:
    rng = np.random.default_rng(2)
    prompts = rng.random(60)
    apart = np.clip(prompts + np.array([[-0.2], [0.0], [0.2]]), 0, 1)
    counts = scoring.bootstrap_counts(60, 2000, 0)
    low, high = scoring.interval(apart, counts, 0) or (0, 0)
    alone_low, alone_high = scoring.interval(apart.mean(0)[None], counts, 0) or (0, 0)
    assert high - low > 1.3 * (alone_high - alone_low)


def test_a_nominal_95_per_cent_interval_covers_about_95_per_cent() -> None:
    rng = np.random.default_rng(5)
    counts = scoring.bootstrap_counts(80, 400, 1)
    covered = 0
    for _ in range(300):
        low, high = scoring.interval((rng.random((1, 80)) < 0.6).astype(float), counts, 1) or (0, 0)
        covered += low <= 60 <= high
    assert 0.91 <= covered / 300 <= 0.98


OUTCOMES = arrays(np.float64, (2, 9), elements=st.sampled_from([0.0, 0.5, 1.0, NAN]))


@settings(max_examples=60, deadline=None)
@given(OUTCOMES)
def test_the_baseline_sees_the_complement(outcomes: np.ndarray) -> None:
    counts = scoring.bootstrap_counts(9, 100, 0)
    ours, theirs = (scoring.summarise(x[..., None], counts, seed=0) for x in (outcomes, 1 - outcomes))
    assert ours.prompts == theirs.prompts
    if ours.win_rate is not None and theirs.win_rate is not None:
        assert ours.win_rate == pytest.approx(100 - theirs.win_rate)
        assert ours.win_share == pytest.approx(theirs.loss_share)
        assert 0 <= ours.win_rate <= 100
        if ours.ci_low is not None and ours.ci_high is not None:
            assert ours.ci_low <= ours.ci_high


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = scoring.holm(p_values)
    assert all(0 <= p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
