"""Drawing tokens: the law of the draws, and what they depend on."""

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dadpo_bench.models.sampling import Draw

LOGITS = torch.tensor([2.0, 0.5, 0.0, -1.0, -torch.inf, 1.0])


def drawn(draw: Draw, logits: torch.Tensor) -> list[int]:
    """The tokens that greedy decoding takes from the processed logits."""
    scores = draw(torch.zeros(len(logits), 1, dtype=torch.long), logits)
    assert torch.isfinite(scores).sum(-1).eq(1).all()
    return scores.argmax(-1).tolist()


def test_tokens_are_drawn_by_their_probabilities() -> None:
    count = 20_000
    tokens = drawn(Draw(0.7, 1.0, range(count)), LOGITS.expand(count, -1))
    expected = torch.softmax(LOGITS.double() / 0.7, -1).numpy() * count
    seen = np.bincount(tokens, minlength=6)
    assert seen[4] == 0
    assert stats.chisquare(np.delete(seen, 4), np.delete(expected, 4)).pvalue > 1e-3


def test_nucleus_sampling_keeps_the_smallest_set_with_the_mass_and_its_proportions() -> None:
    count = 20_000
    # e^2 : e^1 : e^0.5 = 7.39 : 2.72 : 1.65 of 13.12 in all: 0.563, 0.207, 0.126. Two make 0.77, three 0.896.
    tokens = drawn(Draw(1.0, 0.8, range(count)), LOGITS.expand(count, -1))
    seen = np.bincount(tokens, minlength=6)
    kept = [0, 5, 1]
    assert seen.sum() == seen[kept].sum()
    mass = torch.softmax(LOGITS.double(), -1).numpy()[kept]
    assert stats.chisquare(seen[kept], mass / mass.sum() * count).pvalue > 1e-3


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    alone = drawn(Draw(1.0, 1.0, [7]), LOGITS[None])
    assert drawn(Draw(1.0, 1.0, [3, 7]), torch.stack([-LOGITS.nan_to_num(neginf=9.0), LOGITS]))[1:] == alone


def test_the_global_random_states_are_left_alone() -> None:
    python, torch_state = random.getstate(), torch.get_rng_state()
    drawn(Draw(1.0, 0.9, [1]), LOGITS[None])
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), torch_state)


@given(st.integers(0, 2**60), st.lists(st.one_of(st.floats(-50, 50), st.just(-torch.inf)), min_size=1, max_size=40))
def test_a_token_without_mass_is_never_drawn(seed: int, logits: list[float]) -> None:
    row = torch.tensor([*logits, 0.0, -torch.inf])
    (token,) = drawn(Draw(1.0, 0.5, [seed]), row[None])
    assert torch.softmax(row, -1)[token] > 0
