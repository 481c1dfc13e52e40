"""The judge's error corrected: by hand, by its limits, and by coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dadpo_bench import scoring
from dadpo_bench.errors import UserError

NAN = np.nan


def labels_for(truth: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    labels = np.full(truth.shape, NAN)
    labels[chosen] = truth[chosen]
    return labels


def test_a_corrected_rate_worked_by_hand() -> None:
    # 20 labels: the judge says 1 for all 10 of the first kind and for 5 of the other 10; the label is 1 for the first.
    judge = np.array([1.0] * 15 + [0.0] * 5 + [1.0] * 60 + [0.0] * 20)
    labels = labels_for(np.array([1.0] * 10 + [0.0] * 90), np.arange(20))
    found = scoring.corrected_win_rate(judge, labels)
    # cov = (10 − 20·0.5·0.75)/19 = 2.5/19; var(judge) = 100·0.75·0.25/99; λ = (2.5/19)/((1 + 20/80)·18.75/99) = 0.5558
    assert found.weight == pytest.approx(0.5558, abs=1e-4)
    # mean label ½ + λ·(60/80 − 15/20) = ½: the labelled are no other prompts to the judge.
    assert found.win_rate == pytest.approx(50)
    assert (found.labels, found.prompts) == (20, 100)
    assert found.low < 50 < found.high


def test_a_judge_that_is_a_coin_leaves_the_labels_alone() -> None:
    rng = np.random.default_rng(0)
    judge = (rng.random(400) < 0.5).astype(float)
    judge[:40] = np.tile([1.0, 0.0, 0.0, 1.0], 10)
    labels = labels_for(np.tile([1.0, 1.0, 0.0, 0.0], 100), np.arange(40))  # its covariance with the judge is 0
    found = scoring.corrected_win_rate(judge, labels)
    assert (found.weight, found.win_rate) == (0, 50)


def test_a_judge_that_always_says_the_same_is_ignored() -> None:
    labels = labels_for(np.tile([1.0, 0.0], 100), np.arange(30))
    assert scoring.corrected_win_rate(np.ones(200), labels).win_rate == 50


def test_with_all_prompts_labelled_the_labels_are_the_answer() -> None:
    truth = np.tile([1.0, 0.5, 0.0, 0.0], 10)
    found = scoring.corrected_win_rate(1 - truth, truth)
    assert (found.weight, found.win_rate) == (0, pytest.approx(37.5))


def test_few_labels_are_refused_and_unscored_prompts_lend_none() -> None:
    judge = np.tile([1.0, 0.0], 50)
    labels = labels_for(judge, np.arange(scoring.MINIMUM_LABELS))
    assert scoring.corrected_win_rate(judge, labels).labels == scoring.MINIMUM_LABELS
    judge[0] = NAN
    with pytest.raises(UserError, match="19 labels of prompts that the judge scored"):
        scoring.corrected_win_rate(judge, labels)


def test_labels_that_all_agree_prove_no_certainty() -> None:
    found = scoring.corrected_win_rate(np.ones(500), labels_for(np.ones(500), np.arange(30)))
    # Alike: 30 of 30 are won, whose exact interval (Clopper and Pearson) ends at 88.4.
    assert (found.win_rate, found.high) == (100, 100)
    assert found.low == pytest.approx(88.4, abs=3)


def test_a_biased_judge_is_corrected_at_the_nominal_rate() -> None:
    # Where it errs (a quarter of the prompts), it says "win" nine times of ten; truth 30, its own rate about 45.
    rng = np.random.default_rng(1)
    covered = raw = 0
    for _ in range(300):
        truth = (rng.random(400) < 0.3).astype(float)
        judge = np.where(rng.random(400) < 0.25, rng.random(400) < 0.9, truth).astype(float)
        found = scoring.corrected_win_rate(judge, labels_for(truth, rng.permutation(400)[:60]))
        covered += found.low <= 30 <= found.high
        raw += abs(100 * judge.mean() - 30) < 1.96 * 100 * judge.std() / 20
    assert 0.93 <= covered / 300 <= 0.99
    assert raw / 300 < 0.05


def test_labels_of_one_seed_correct_the_judge_there_and_leave_the_other_seeds_theirs() -> None:
    judge = np.array([[1.0] * 11 + [0.0] * 29, [1.0] * 5 + [0.0] * 35, [1.0] * 5 + [0.0] * 35])
    labels = np.full(judge.shape, NAN)
    labels[0] = judge[0]
    # Of seed 0 27.5 are won, of all (11 + 5 + 5)/120 = 17.5: where the labels are the judge's own, nothing moves.
    assert scoring.corrected_win_rate(judge, labels).win_rate == pytest.approx(17.5)
    # Labels that call four wins of seed 0 more take its error for that of all.
    labels[0, 11:15] = 1
    assert scoring.corrected_win_rate(judge, labels).win_rate == pytest.approx(27.5)


def test_labels_that_repeat_the_judge_change_no_rate_wherever_they_are() -> None:
    rng = np.random.default_rng(0)
    judge = (rng.random((3, 60)) < [[0.2], [0.5], [0.7]]).astype(float)
    judge[1, 7] = NAN
    everywhere = rng.permutation(180).reshape(3, 60) % 3 == 0
    everywhere[0] |= ~everywhere.any(0)
    found = scoring.corrected_win_rate(judge, np.where(everywhere, judge, NAN))
    assert found.win_rate == pytest.approx(100 * scoring.nanmean(scoring.nanmean(judge, 0), 0))


def test_seeds_that_differ_are_in_the_interval() -> None:
    rng = np.random.default_rng(2)
    held = {3: 0, 10: 0}
    for seeds in held:
        for _ in range(200):
            truth = (rng.random((seeds, 300)) < 0.5 + rng.normal(0, 0.08, (seeds, 1))).astype(float)
            judge = np.where(rng.random(truth.shape) < 0.2, 1.0, truth)
            labels = np.where(rng.random((1, 300)) < 0.3, truth, NAN)
            labels[1:] = NAN
            found = scoring.corrected_win_rate(judge, labels)
            held[seeds] += found.low <= 50 <= found.high
    assert min(held.values()) / 200 >= 0.92


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1), st.sampled_from([20, 30, 99, 100]))
def test_an_interval_holds_its_estimate_within_0_and_100(seed: int, rate: float, error: float, labelled: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random(100) < rate).astype(float)
    judge = np.where(rng.random(100) < error, 1 - truth, truth)
    found = scoring.corrected_win_rate(judge, labels_for(truth, rng.permutation(100)[:labelled]))
    assert 0 <= found.low <= found.win_rate <= found.high <= 100
