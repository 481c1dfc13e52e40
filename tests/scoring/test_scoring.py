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


def test_without_a_tie_the_tie_share_is_exactly_0() -> None:
    # 100·(1 − 0.8 − 0.2) is −5.6e-15 in floating point, which a board would show as −0.0.
    assert scoring.win_tie_loss(np.array([1.0] * 8 + [0.0] * 2)) == (80.0, 0.0, 20.0)


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
    assert scoring.sign_flip_p(np.zeros(5), seed=0) == 1.0


def test_sampled_sign_flips_agree_with_enumerated_ones() -> None:
    gaps = np.random.default_rng(0).normal(0.4, 1, 12)
    exact = scoring.sign_flip_p(gaps, seed=0)
    sampled = scoring.sign_flip_p(np.append(gaps, 1e-12), seed=0)
    assert sampled == pytest.approx(exact, abs=0.02)


def test_a_sampled_p_value_counts_the_observation_itself() -> None:
    # 40 gaps of one sign: none of 99 random flips reaches 40, so (0 + 1)/(99 + 1), never 0.
    assert scoring.sign_flip_p(np.ones(40), seed=0, draws=99) == 0.01


def test_sampled_flips_do_not_depend_on_how_they_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = np.random.default_rng(4).normal(0.1, 1, 50)
    whole = scoring.sign_flip_p(gaps, seed=0)
    monkeypatch.setattr(scoring.intervals, "_CHUNK", 777)
    assert scoring.sign_flip_p(gaps, seed=0) == whole


def test_a_canary_loses_clearly_only_by_a_known_bound_below_50() -> None:
    assert scoring.loses_clearly(49.9)
    assert not scoring.loses_clearly(50.0)
    assert not scoring.loses_clearly(None)


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


def test_differences_of_many_pairs_are_those_of_each() -> None:
    rng = np.random.default_rng(5)
    shapes = [(1, 40), (3, 40), (1, 25), (2, 40)]
    firsts = [rng.integers(0, 3, shape) / 2 for shape in shapes]
    seconds = [rng.integers(0, 3, shape) / 2 for shape in [(1, 40), (3, 40), (1, 25), (1, 40)]]
    pairs = list(zip(firsts, seconds, strict=True))
    found = scoring.paired_differences(pairs, draws=300, seed=7)
    for (first, second), many in zip(pairs, found, strict=True):
        counts = scoring.bootstrap_counts(first.shape[1], 300, 7)
        assert many == pytest.approx(scoring.paired_difference(first, second, counts, seed=7))


def test_of_many_pairs_each_uses_its_own_shared_prompts() -> None:
    one, other = np.array([[1.0, 1.0, NAN, 0.0]]), np.array([[0.0, 1.0, 1.0, NAN]])
    ((estimate, *_, prompts), nothing) = scoring.paired_differences(
        [(one, other), (one[:, 2:], other[:, 2:])], draws=50, seed=0
    )
    assert (estimate, prompts, nothing) == (50, 2, None)


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


def test_each_draw_weighs_prompts_as_the_estimate_does() -> None:
    # Prompt 1 scored by both seeds, prompt 2 by the first alone.
    outcomes = np.array([[1.0, 1.0], [0.0, NAN]])
    counts = np.ones((400, 2), dtype=np.int16)
    # Prompts drawn once each. Seeds 1, 1: (1 + 1)/2. Seeds 1, 2: (½ + 1)/2, where the mean of cells is ⅔.
    # Seeds 2, 2: prompt 2 is unscored and prompt 1 is 0.
    assert set(scoring.bootstrap_means(outcomes, counts, 0)) == {1.0, 0.75, 0.0}


def test_an_interval_holds_its_estimate_where_seeds_miss_different_prompts() -> None:
    rng = np.random.default_rng(0)
    outcomes = (rng.random((3, 200)) < 0.5).astype(float)
    outcomes[1:, :100] = NAN
    outcomes[0, :100] = 1.0
    summary = scoring.summarise(outcomes[..., None], scoring.bootstrap_counts(200, 2000, 0), seed=0)
    # Prompts 1 to 100 are all won under the one seed that scored them, 101 to 200 near ½: about (100 + 50)/2.
    assert summary.win_rate == pytest.approx(75, abs=3)
    assert summary.ci_low is not None
    assert summary.ci_high is not None
    assert summary.ci_low < summary.win_rate < summary.ci_high


def test_seeds_that_miss_the_same_prompts_give_the_interval_of_the_rest() -> None:
    outcomes = np.random.default_rng(6).random((3, 30))
    counts = scoring.bootstrap_counts(30, 500, 0)
    holed = np.concatenate([outcomes, np.full((3, 10), NAN)], axis=1)
    padded = np.concatenate([counts, np.zeros((500, 10), np.int16)], axis=1)
    assert scoring.interval(holed, padded, 0) == pytest.approx(scoring.interval(outcomes, counts, 0))


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


def test_with_three_seeds_only_the_crossed_interval_covers() -> None:
    # Seeds deviate by 4 points; truth 50. Over prompts alone the seeds' own variance is missed.
    rng = np.random.default_rng(8)
    counts = scoring.bootstrap_counts(300, 400, 1)
    crossed = prompts_only = 0
    for _ in range(300):
        rates = 0.5 + rng.normal(0, 0.04, (3, 1))
        # A quarter of the variance of an outcome is the prompt's, shared by all seeds.
        chances = np.clip(rates + rng.normal(0, 0.25, 300), 0, 1)
        outcomes = (rng.random((3, 300)) < chances).astype(float)
        low, high = scoring.interval(outcomes, counts, 1) or (0, 0)
        crossed += low <= 50 <= high
        low, high = scoring.interval(outcomes.mean(0)[None], counts, 1) or (0, 0)
        prompts_only += low <= 50 <= high
    assert 0.92 <= crossed / 300 <= 0.98
    assert prompts_only / 300 < 0.9


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
@given(OUTCOMES, st.permutations(range(9)))
def test_the_order_of_prompts_changes_nothing(outcomes: np.ndarray, order: list[int]) -> None:
    counts = scoring.bootstrap_counts(9, 100, 0)
    ours = scoring.summarise(outcomes[..., None], counts, seed=0)
    theirs = scoring.summarise(outcomes[:, order, None], counts[:, order], seed=0)
    assert (ours.prompts, ours.unscored, ours.win_share) == (theirs.prompts, theirs.unscored, theirs.win_share)
    for name in ("win_rate", "standard_error", "ci_low", "ci_high"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = scoring.holm(p_values)
    assert all(0 <= p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
