"""Arena-Hard's style counters on its own answers and on any text, and ratings at equal style."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from dadpo_bench import scoring
from dadpo_bench.scoring.bradley_terry import SCALE

ORACLE = Path(__file__).parents[3] / "shared" / "oracle" / "arena_hard" / "answer_v2.0_o3-mini_100.jsonl"
NAN = np.nan


def answers() -> list[tuple[str, dict[str, int | dict[str, int]]]]:
    if not ORACLE.is_file():
        pytest.skip("Arena-Hard's answers are not beside the project")
    rows = [json.loads(line) for line in ORACLE.read_text(encoding="utf-8").split("\n") if line]
    return [(row["messages"][-1]["content"]["answer"], row["metadata"]) for row in rows]


def test_markdown_is_counted_as_in_arena_hards_answers() -> None:
    rows = answers()
    assert len(rows) == 100
    for text, metadata in rows:
        assert scoring.markdown_counts(text) == {k: v for k, v in metadata.items() if k != "token_len"}


def test_metadata_with_its_token_length_is_arena_hards() -> None:
    counter = scoring.tiktoken_counter("o200k_base")
    if counter is None:
        pytest.skip("no tiktoken with the table of o200k_base at hand")
    assert counter.name == "o200k_base"
    for text, metadata in answers():
        assert scoring.style_metadata(text, counter) == metadata


def test_a_counter_without_its_table_is_none_and_fetches_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert scoring.tiktoken_counter("cl100k_base") is None


def test_counts_of_a_text_by_hand() -> None:
    text = "# One\n## Two\n#none\n\n1. a\n  2. b\n- c\n* d\n+ e\n-f\n**x** __y__ **z\n**\n```\n# no\n- no\n```\n"
    assert scoring.markdown_counts(text) == {
        "header_count": {"h1": 1, "h2": 1, "h3": 0, "h4": 0, "h5": 0, "h6": 0},
        "list_count": {"ordered": 2, "unordered": 3},
        "bold_count": {"**": 1, "__": 1},
    }


def test_what_a_code_block_holds_goes_wherever_it_stands_as_in_arena_hard() -> None:
    # The block's "- " is also the rest of the text's.
    assert scoring.markdown_counts("```- ```\n- a\n- b")["list_count"] == {"ordered": 0, "unordered": 0}


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=" \t\r\n\v\u2028\u00a001.-*+#_`a", max_size=60))
@example("\n\n 1.\n\n2. \n-\n-\n- ")
def test_list_items_are_those_of_arena_hards_own_patterns(text: str) -> None:
    plain = text.replace("`", "")
    assert scoring.markdown_counts(plain)["list_count"] == {
        "ordered": len(re.findall(r"^\s*\d+\.\s", plain, re.MULTILINE)),
        "unordered": len(re.findall(r"^\s*[-*+]\s", plain, re.MULTILINE)),
    }


def test_a_response_of_blank_lines_takes_no_square_of_time() -> None:
    # Arena-Hard's own pattern would take 10^11 steps.
    assert scoring.markdown_counts("\n" * 300_000)["list_count"] == {"ordered": 0, "unordered": 0}


def test_differences_by_hand() -> None:
    ours, theirs = np.array([300.0, 3.0, 6.0, 0.0]), np.array([100.0, 0.0, 2.0, 0.0])
    # Tokens (300 − 100)/400; headers 0.01/(0.01 + 1); lists 0.02 a token on both sides.
    assert scoring.style_differences(ours, theirs) == pytest.approx([0.5, 0.01 / 1.01, 0, 0])
    assert scoring.style_differences(theirs, ours) == pytest.approx([-0.5, -0.01 / 1.01, 0, 0])


def test_an_empty_response_has_a_style_too() -> None:
    empty, some = np.zeros(4), np.array([100.0, 0.0, 2.0, 0.0])
    assert scoring.style_differences(empty, some) == pytest.approx([-1, 0, -0.02 / 1.02, 0])
    assert scoring.style_differences(empty, empty) == pytest.approx([0, 0, 0, 0])


def board(
    contestants: int, prompts: int, worth: list[float], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs with the baseline, outcomes, style differences, true logits; contestant 1 writes half as much again."""
    rng = np.random.default_rng(seed)
    shape = (contestants, prompts)
    vectors = np.concatenate([rng.lognormal(5, 0.4, (*shape, 1)), rng.poisson(3, (*shape, 3))], -1)
    vectors[1, :, 0] *= 1.5
    differences = scoring.style_differences(vectors[1:], vectors[:1])
    spread = differences.reshape(-1, 4).std(0, ddof=1)
    theta = np.linspace(-0.6, 0.6, contestants - 1)
    chance = 1 / (1 + np.exp(-(theta[:, None] + differences / spread @ np.array(worth))))
    outcomes = (rng.random(chance.shape) < chance).astype(float)
    return np.array([(m, 0) for m in range(1, contestants)]), outcomes, differences, theta


def rate(pairs: np.ndarray, outcomes: np.ndarray, differences: np.ndarray, draws: int = 100) -> scoring.StyleRatings:
    counts = scoring.bootstrap_counts(outcomes.shape[-1], draws, 0)
    return scoring.style_ratings(pairs, outcomes, differences, counts, counter="words", seed=0)


def test_style_control_is_arena_hards_regression_but_for_where_style_is_0() -> None:
    pairs, outcomes, differences, _ = board(5, 150, [0.8, 0.2, -0.2, 0], 0)
    ours = rate(pairs, outcomes, differences)
    # As its show_result.py: contestants one-hot, features centred and standardised, no penalty.
    flat = differences.reshape(-1, 4)
    design = np.hstack([np.repeat(np.eye(4), 150, 0), (flat - flat.mean(0)) / flat.std(0, ddof=1)])
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=5000).fit(design, outcomes.ravel())
    points = SCALE * theirs.coef_[0]
    assert [r.rating + ours.mean_style for r in ours.ratings[1:]] == pytest.approx(1000 + points[:4], abs=0.05)
    assert ours.worth == pytest.approx(points[4:], abs=0.05)
    assert (ours.counter, ours.draws, ours.diverged) == ("words", 100, 0)


def test_a_padded_contestant_loses_what_length_gave_it() -> None:
    pairs, outcomes, differences, theta = board(5, 400, [1.0, 0, 0, 0], 1)
    plain = scoring.bradley_terry_ratings(pairs, outcomes, scoring.bootstrap_counts(400, 100, 0), seed=0)
    equal = rate(pairs, outcomes, differences)
    assert plain[1].rating - equal.ratings[1].rating > 80
    assert equal.ratings[1].low <= 1000 + SCALE * theta[0] <= equal.ratings[1].high
    assert plain[1].low > 1000 + SCALE * theta[0]


def test_without_any_difference_of_style_the_ratings_are_the_plain_ones() -> None:
    pairs, outcomes, differences, _ = board(4, 60, [0, 0, 0, 0], 2)
    outcomes[1, :9] = NAN
    plain = scoring.bradley_terry_ratings(pairs, outcomes, scoring.bootstrap_counts(60, 100, 0), seed=0)
    equal = rate(pairs, outcomes, np.zeros_like(differences))
    np.testing.assert_allclose(equal.ratings, plain, atol=1e-5)
    assert equal.worth == (0, 0, 0, 0)


def test_which_way_round_pairs_are_written_changes_nothing() -> None:
    pairs, outcomes, differences, _ = board(4, 80, [0.5, 0, 0.3, 0], 3)
    one = rate(pairs, outcomes, differences)
    other = rate(pairs[:, ::-1], 1 - outcomes, -differences)
    # The sample deviation is taken about a mean that the writing moves: by a little, and γ by as little.
    np.testing.assert_allclose(one.ratings, other.ratings, atol=1e-4)


def test_who_wins_all_is_unbounded_at_equal_style_too() -> None:
    pairs, outcomes, differences, _ = board(4, 60, [0.5, 0, 0, 0], 4)
    outcomes[2] = 1.0
    assert [r.standing for r in rate(pairs, outcomes, differences).ratings] == ["rated", "rated", "rated", "above"]


def test_a_style_that_explains_every_win_has_no_finite_worth() -> None:
    # The longer of two wins, whoever wrote it.
    difference = np.tile([0.5, 0.1, -0.1, -0.5], 5)
    differences = np.zeros((1, 20, 4))
    differences[0, :, 0] = difference
    found = rate(np.array([(1, 0)]), (difference > 0).astype(float)[None], differences)
    assert found.diverged == found.draws
    assert (found.ratings[1].standing, np.isnan(found.worth[0])) == ("undetermined", True)


def test_several_seeds_are_averaged_and_crossed() -> None:
    _, outcomes, differences, _ = board(4, 80, [0.5, 0, 0, 0], 5)
    counts = scoring.bootstrap_counts(80, 200, 0)
    pairs = np.array([(1, 0)])
    seeds = scoring.style_ratings(pairs, [outcomes], [differences], counts, counter="words", seed=0)
    assert seeds.ratings[1].high - seeds.ratings[1].low > 50  # θ from −0.6 to 0.6 over three seeds: ± 100 points
    alone = scoring.style_ratings(pairs, [outcomes[1]], [differences[1]], counts, counter="words", seed=0)
    thrice = [np.stack([outcomes[1]] * 3)], [np.stack([differences[1]] * 3)]
    same = scoring.style_ratings(pairs, *thrice, counts, counter="words", seed=0)
    np.testing.assert_allclose(same.ratings, alone.ratings, atol=0.5)  # but for n − 1 of the deviation
