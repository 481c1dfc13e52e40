"""Plain Bradley–Terry: by hand in a star, against logistic regression elsewhere, and where there is no rating."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression

from dadpo_bench import scoring
from dadpo_bench.scoring.bradley_terry import SCALE, fit

NAN, INF = np.nan, np.inf


def win_chance(ours: scoring.Rating, theirs: scoring.Rating) -> float:
    return float(1 / (1 + 10 ** ((theirs.rating - ours.rating) / 400)))


def rate(pairs: list[tuple[int, int]], outcomes: np.ndarray, draws: int = 200) -> tuple[scoring.Rating, ...]:
    counts = scoring.bootstrap_counts(outcomes.shape[-1], draws, 0)
    return scoring.bradley_terry_ratings(np.array(pairs), outcomes, counts, seed=0)


def test_in_a_star_the_rating_is_the_mean_outcome_and_not_davidsons() -> None:
    # 3 wins, 2 ties, 5 losses: mean 0.400. Davidson's model gives 3/(3 + 5) = 0.375.
    base, ours = rate([(1, 0)], np.array([[1.0] * 3 + [0.5] * 2 + [0.0] * 5]))
    assert win_chance(ours, base) == pytest.approx(0.4, abs=1e-12)
    # 1000 + 400·log10(0.4/0.6) = 1000 − 400·0.17609
    assert ours.rating == pytest.approx(929.563, abs=1e-3)
    assert base == (1000, 1000, 1000)


def test_a_pair_may_be_written_either_way_round() -> None:
    outcomes = np.array([[1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 0.5, NAN]])
    one = rate([(1, 0), (2, 0)], outcomes)
    other = rate([(0, 1), (2, 0)], np.stack([1 - outcomes[0], outcomes[1]]))
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_round_robin_agrees_with_logistic_regression_without_penalty() -> None:
    rng = np.random.default_rng(0)
    pairs = [(i, j) for i in range(5) for j in range(i)]
    theta = np.array([0.0, 0.5, -0.7, 1.1, 0.2])
    chances = np.array([1 / (1 + np.exp(theta[j] - theta[i])) for i, j in pairs])
    outcomes = (rng.random((10, 60)) < chances[:, None]).astype(float)
    outcomes[rng.random(outcomes.shape) < 0.1] = 0.5
    outcomes[:, :5][rng.random((10, 5)) < 0.5] = NAN
    # Every comparison stands there twice, as a win and as a loss, with its share as weight.
    rows = [(i, j, outcome) for (i, j), row in zip(pairs, outcomes, strict=True) for outcome in row if outcome >= 0]
    design = np.zeros((len(rows), 5))
    for row, (i, j, _) in zip(design, rows, strict=True):
        row[i], row[j] = 1, -1
    won = np.array([outcome for *_, outcome in rows])
    model = LogisticRegression(C=INF, fit_intercept=False, tol=1e-10, max_iter=2000)
    model.fit(np.vstack([design, design])[:, 1:], np.r_[np.ones(len(won)), np.zeros(len(won))], np.r_[won, 1 - won])
    ours = [r.rating for r in rate(pairs, outcomes)]
    assert ours[1:] == pytest.approx(1000 + 400 / np.log(10) * model.coef_[0], abs=0.01)


def test_a_general_fit_of_a_star_is_its_closed_form() -> None:
    rng = np.random.default_rng(1)
    pairs, means, games = np.array([(1, 0), (0, 2), (3, 0)]), rng.uniform(0.02, 0.98, (50, 3)), np.full((50, 3), 80.0)
    fitted, _ = fit(pairs, means[..., None], games[..., None], np.zeros((50, 4)), 0)
    np.testing.assert_allclose(fitted[:, 1], np.log(means[:, 0] / (1 - means[:, 0])), atol=1e-8)
    np.testing.assert_allclose(fitted[:, 2], np.log((1 - means[:, 1]) / means[:, 1]), atol=1e-8)


def test_a_fit_converges_from_far_away() -> None:
    pairs = np.array([(1, 0), (2, 0), (2, 1)])
    means, games = np.array([[0.5, 0.9, 0.9]])[..., None], np.full((1, 3, 1), 10.0)
    near, _ = fit(pairs, means, games, np.zeros((1, 3)), 0)
    far, _ = fit(pairs, means, games, np.zeros((1, 3)), 0, initial=np.array([0.0, 30.0, -30.0]))
    np.testing.assert_allclose(near, far, atol=1e-8)
    assert near[0, 1:] == pytest.approx([0, np.log(9)])  # 0 and 1 are alike, and 2 wins nine of ten of both


def test_all_won_and_all_lost_are_unbounded_and_open_beyond() -> None:
    _, won, lost, even = rate([(1, 0), (2, 0), (3, 0)], np.array([[1.0] * 40, [0.0] * 40, [1.0, 0.0] * 20]))
    assert (won.rating, won.high, won.standing) == (INF, INF, "above")
    assert (lost.rating, lost.low, lost.standing) == (-INF, -INF, "below")
    assert even.standing == "rated"
    # 40 of 40 won: 0.025^(1/40) = 0.9119; 1000 + 400·log10(0.9119/0.0881)
    assert won.low == pytest.approx(1406, abs=0.5)
    assert lost.high == pytest.approx(2000 - won.low)
    assert won.as_data() == {
        "rating": None, "rating_low": pytest.approx(won.low), "rating_high": None, "rating_standing": "above"
    }  # fmt: skip


def test_a_draw_without_a_loss_opens_the_intervals_end() -> None:
    # One loss in 20: it is missing from 0.95^20 = 36 % of the draws, more than 2.5 %.
    _, ours = rate([(1, 0)], np.array([[0.0] + [1.0] * 19]), draws=2000)
    assert np.isfinite(ours.rating)
    assert np.isfinite(ours.low)
    assert ours.high == INF
    # With five it is drawn but for 0.75^20 = 0.3 %.
    _, ours = rate([(1, 0)], np.array([[0.0] * 5 + [1.0] * 15]), draws=2000)
    assert np.isfinite(ours.high)


def test_ratings_beyond_a_clean_sweep_are_not_invented() -> None:
    # 1 and the baseline share wins, 2 beats both always, 3 shares wins with 2 alone.
    pairs = [(1, 0), (2, 0), (2, 1), (3, 2)]
    half = [1.0, 0.0] * 10
    _, equal, above, with_it = rate(pairs, np.array([half, [1.0] * 20, [1.0] * 20, half]))
    assert equal.rating == pytest.approx(1000)
    assert above.standing == with_it.standing == "above"
    assert (above.low > 1000, with_it.low) == (True, -INF)  # 20 of 20 against the baseline; never met it


def test_who_is_not_linked_to_the_baseline_has_no_rating() -> None:
    half = [1.0, 0.0] * 10
    ratings = rate([(1, 0), (3, 2)], np.array([half, half]))
    assert [r.standing for r in ratings] == ["rated", "rated", "undetermined", "undetermined"]
    assert ratings[2].as_data()["rating"] is None
    # Both lost everything to 1, whom 0 beats half of the time: 2 is below; of 4, whom 2 always beats, as well.
    ratings = rate([(1, 0), (1, 2), (2, 3)], np.array([half, [1.0] * 20, [0.0] * 20]))
    assert [r.standing for r in ratings] == ["rated", "rated", "below", "undetermined"]


def test_one_prompt_bounds_nothing() -> None:
    _, ours = rate([(1, 0)], np.array([[0.7]]))
    assert (ours.low, ours.high) == (-INF, INF)


def test_a_pair_given_twice_or_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="once"):
        rate([(1, 0), (0, 1)], np.full((2, 4), 0.5))
    with pytest.raises(ValueError, match="once"):
        rate([(1, 1)], np.full((1, 4), 0.5))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        rate([(1, 0)], np.full((1, 4), 50.0))


def test_a_stars_interval_is_the_win_rates_on_another_scale_seeds_included() -> None:
    rng = np.random.default_rng(3)
    outcomes = np.clip(rng.random((3, 80)) + np.array([[-0.2], [0.0], [0.2]]), 0, 1)
    outcomes[1, :7] = NAN
    counts = scoring.bootstrap_counts(80, 2000, 0)
    bounds = scoring.interval(outcomes, counts, 0)
    assert bounds is not None
    (_, ours) = scoring.bradley_terry_ratings(np.array([(1, 0)]), [outcomes], counts, seed=0)
    assert (ours.low, ours.high) == pytest.approx(tuple(scoring.points(np.array(bounds) / 100)), abs=0.5)
    (_, alone) = scoring.bradley_terry_ratings(np.array([(1, 0)]), [scoring.nanmean(outcomes, 0)], counts, seed=0)
    assert alone.rating == pytest.approx(ours.rating)
    assert ours.high - ours.low > 1.3 * (alone.high - alone.low)


@pytest.mark.parametrize("pairs", [[(1, 0), (2, 0)], [(1, 0), (2, 0), (2, 1)]], ids=["star", "triangle"])
def test_a_nominal_95_per_cent_interval_covers_about_95_per_cent(pairs: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(4)
    counts = scoring.bootstrap_counts(100, 300, 1)
    theta = np.array([0.0, 0.4, -0.5])
    chances = np.array([1 / (1 + np.exp(theta[j] - theta[i])) for i, j in pairs])
    covered = 0
    for _ in range(150):
        outcomes = (rng.random((len(pairs), 100)) < chances[:, None]).astype(float)
        _, *ours = scoring.bradley_terry_ratings(np.array(pairs), outcomes, counts, seed=1)
        covered += sum(r.low <= 1000 + SCALE * t <= r.high for r, t in zip(ours, theta[1:], strict=True))
    assert 0.91 <= covered / 300 <= 0.98


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (3, 6), elements=st.sampled_from([0.0, 0.5, 1.0, NAN])))
def test_the_likelihood_has_its_maximum_at_finite_ratings_and_none_elsewhere(outcomes: np.ndarray) -> None:
    pairs = [(1, 0), (2, 0), (2, 1)]
    ratings = rate(pairs, outcomes, draws=20)
    finite = {k for k, r in enumerate(ratings) if r.standing == "rated"}
    # At a maximum, everyone's expected points among the finite ones are the points taken.
    for k in finite:
        surplus = 0.0
        for (i, j), row in zip(pairs, outcomes, strict=True):
            if k in (i, j) and {i, j} <= finite:
                scored = row[~np.isnan(row)]
                chance = win_chance(ratings[i], ratings[j])
                surplus += (1 if k == i else -1) * float((scored - chance).sum())
        assert surplus == pytest.approx(0, abs=1e-6)
    for r in ratings:
        assert np.isnan(r.rating) or r.low <= r.high
