"""Agreement of verdicts with labels, with the arithmetic beside each expectation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadpo_bench.scoring import agreement

NAN = float("nan")
WIN, TIE, LOSS = 1.0, 0.5, 0.0


def array(*values: float) -> np.ndarray:
    return np.array(values)


def test_agreement_is_the_share_of_labels_on_the_verdicts_side_of_a_half() -> None:
    # Graded 0.7 is a win: agrees; tie against win: not; loss agrees; unscored and unlabelled are not compared.
    found = agreement.agreement(array(0.7, TIE, LOSS, NAN, WIN), array(WIN, WIN, LOSS, WIN, NAN))
    assert found is not None
    assert (found.share, found.pairs, found.votes) == (pytest.approx(200 / 3), 3, 3)
    assert found.low <= found.share <= found.high


def test_without_ties_a_tie_of_either_side_is_left_out() -> None:
    found = agreement.agreement(array(WIN, TIE, LOSS, WIN), array(WIN, WIN, TIE, LOSS), ties=False)
    assert found is not None
    assert (found.share, found.votes) == (50.0, 2)


def test_every_annotator_of_a_pair_is_a_vote() -> None:
    # Pair 1: two of three agree; pair 2: its one annotator agrees. 3 of 4.
    labels = np.array([[WIN, LOSS], [WIN, NAN], [LOSS, NAN]])
    found = agreement.agreement(array(WIN, LOSS), labels)
    assert found is not None
    assert (found.share, found.pairs, found.votes) == (75.0, 2, 4)


def test_the_interval_resamples_prompts_with_all_votes_on_their_pairs() -> None:
    # Two prompts of 50 pairs, one always right, one always wrong: of two drawn, none, one or both are right.
    verdicts, labels = array(*[WIN] * 100), array(*[WIN] * 50, *[LOSS] * 50)
    found = agreement.agreement(verdicts, labels, prompts=["one"] * 50 + ["two"] * 50)
    assert found is not None
    assert (found.share, found.low, found.high, found.pairs) == (50, 0, 100, 100)


def test_verdicts_in_two_orders_are_votes_on_one_pair() -> None:
    # Four votes of two pairs, one pair alike in both orders, one in neither.
    found = agreement.agreement(np.array([[WIN, WIN], [WIN, WIN]]), np.array([[WIN, LOSS], [WIN, LOSS]]))
    assert found is not None
    assert (found.share, found.low, found.high, found.pairs, found.votes) == (50, 0, 100, 2, 4)


def test_annotators_agree_as_often_as_two_of_them_drawn_at_random_do() -> None:
    # Pair 1: three labels, two alike: 1 of 3 couples. Pair 2: alike. Pair 3: one label, not counted. (1/3 + 1) / 2.
    labels = np.array([[WIN, LOSS, WIN], [WIN, LOSS, NAN], [LOSS, NAN, NAN]])
    assert agreement.between_annotators(labels) == pytest.approx(200 / 3)
    assert agreement.between_annotators(labels[:1]) is None


def test_the_majority_is_a_tie_where_annotators_are_level_or_most_say_so() -> None:
    # Two of three; one each; nobody; two of three say tie; one of two says tie.
    labels = np.array([[WIN, WIN, NAN, LOSS, WIN], [WIN, LOSS, NAN, TIE, TIE], [LOSS, TIE, NAN, TIE, NAN]])
    assert np.array_equal(agreement.majority(labels), array(WIN, TIE, NAN, TIE, TIE), equal_nan=True)


def test_cohens_kappa_of_a_textbook_case() -> None:
    # Cohen's 2 × 2 of 20 + 5 + 10 + 15: observed 35/50 = 0.7, by chance 0.5·0.6 + 0.5·0.4 = 0.5 → 0.4.
    first = array(*[WIN] * 25, *[LOSS] * 25)
    second = array(*[WIN] * 20, *[LOSS] * 5, *[WIN] * 10, *[LOSS] * 15)
    assert agreement.cohen_kappa(first, second) == pytest.approx(0.4)
    assert agreement.cohen_kappa(array(WIN, WIN), array(WIN, WIN)) is None


def test_krippendorffs_alpha_of_a_worked_case() -> None:
    # Two raters, pairs (w,w), (w,l), (l,l). Values: w 3, l 3 of n = 6. Observed disagreement: 2 of 6 coincidences;
    # expected: 2·3·3 / (6·5) = 0.6. α = 1 − (2/6)/0.6 = 4/9.
    raters = np.array([[WIN, WIN, LOSS], [WIN, LOSS, LOSS]])
    assert agreement.krippendorff_alpha(raters) == pytest.approx(4 / 9)
    assert agreement.krippendorff_alpha(np.array([[WIN, WIN], [WIN, WIN]])) is None


def test_the_share_for_the_response_shown_first_tells_position_bias() -> None:
    always_first = np.array([[WIN, LOSS], [WIN, LOSS]])
    content = np.array([[WIN, WIN], [LOSS, LOSS]])
    assert agreement.first_shown_share(always_first) == 100
    assert agreement.first_shown_share(content) == 50
    assert agreement.first_shown_share(np.array([[TIE, TIE]])) is None


def test_the_preference_for_a_trait_counts_decided_pairs_that_differ_in_it() -> None:
    # Longer wins, longer loses, equal length (left out), tie (left out).
    outcomes, first, second = array(WIN, WIN, WIN, TIE), array(9, 1, 4, 9), array(1, 9, 4, 1)
    assert agreement.preferred_share(outcomes, first, second) == 50
    assert agreement.preferred_share(array(TIE), array(2), array(1)) is None


@given(st.lists(st.sampled_from([WIN, TIE, LOSS, NAN]), min_size=1, max_size=30))
def test_a_judge_agrees_with_itself_and_swapping_sides_changes_nothing(values: list[float]) -> None:
    outcomes = array(*values)
    found = agreement.agreement(outcomes, outcomes, draws=50)
    assert (found is None) == bool(np.isnan(outcomes).all())
    assert found is None or found.share == 100
    labels = outcomes[::-1]
    there, back = (agreement.agreement(a, b, draws=50) for a, b in ((outcomes, labels), (1 - outcomes, 1 - labels)))
    assert there == back
