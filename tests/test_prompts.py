"""The shipped prompt sets: enough of them, balanced, and really different between splits."""

import re
from itertools import combinations

import pytest

from dadpo_bench.tasks import load_task
from dadpo_bench.types import Prompt

SETS = {
    "train": load_task("assistance", "train").prompts,
    "validation": load_task("assistance", "validation").prompts,
    "heldout": load_task("assistance", "heldout").prompts,
    "general": load_task("general", "heldout").prompts,
}
_STOP_WORDS = """
a an and are as at be but by for from have how i in is it my of on or please that the this to was what when with you
your me do does one two three sentence sentences short keep under words no more than
"""
_COMMON = frozenset(_STOP_WORDS.split())


def words(prompt: Prompt) -> list[str]:
    return re.findall(r"\w+", " ".join(prompt.turns).lower())


def shingles(prompt: Prompt, size: int = 5) -> set[tuple[str, ...]]:
    given = words(prompt)
    return {tuple(given[i : i + size]) for i in range(len(given) - size + 1)}


@pytest.mark.parametrize(("name", "least"), [("train", 240), ("validation", 32), ("heldout", 64), ("general", 40)])
def test_there_are_enough_prompts(name: str, least: int) -> None:
    assert len(SETS[name]) >= least


def test_out_of_domain_prompts_are_of_eight_other_kinds_half_of_them_two_turn() -> None:
    assert len({p.category for p in SETS["general"]}) == 8
    assert sum(len(p.turns) == 2 for p in SETS["general"]) * 2 == len(SETS["general"])
    assert not {p.category for p in SETS["general"]} & {p.category for p in SETS["train"]}


@pytest.mark.parametrize(("first", "second"), list(combinations(SETS, 2)))
def test_splits_share_no_near_duplicates(first: str, second: str) -> None:
    for ours in SETS[first]:
        mine, terms = shingles(ours), set(words(ours)) - _COMMON
        for theirs in SETS[second]:
            shared = len(mine & shingles(theirs)) / max(1, min(len(mine), len(shingles(theirs))))
            others = set(words(theirs)) - _COMMON
            alike = len(terms & others) / max(1, len(terms | others))
            assert shared < 0.3, (ours.id, theirs.id)
            assert alike < 0.5, (ours.id, theirs.id)


@pytest.mark.parametrize("name", SETS)
def test_any_prefix_is_balanced_over_categories(name: str) -> None:
    prompts = SETS[name]
    kinds = len({p.category for p in prompts})
    for start in range(0, len(prompts) - kinds + 1, kinds):
        assert len({p.category for p in prompts[start : start + kinds]}) == kinds
