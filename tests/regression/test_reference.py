"""The committed reference: every stored score follows from stored verdicts, and the board from the scores."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dadpo_bench.leaderboard import render
from dadpo_bench.pipeline import make_plan
from dadpo_bench.recipe import load_recipe
from dadpo_bench.scores import compute_rows
from dadpo_bench.store import Store, open_store, schema

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference.sqlite3"
pytestmark = pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference store")


@pytest.fixture(scope="module")
def reference() -> Iterator[Store]:
    store = open_store(str(REFERENCE), create=False)
    yield store
    store.close()


def same(stored: Any, computed: Any) -> bool:
    if isinstance(stored, float) and isinstance(computed, float):
        return math.isclose(stored, computed, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(stored, list | tuple):
        return len(stored) == len(computed) and all(map(same, stored, computed))
    return bool(stored == computed)


def test_every_stored_score_is_what_its_verdicts_give(reference: Store) -> None:
    with reference.read() as session:
        stored = {
            (s.protocol_key, s.judge_key, s.task_key, s.baseline, s.contestant): s.values
            for s in session.scalars(select(schema.Score))
        }
        assert stored
        for protocol, judge in {key[:2] for key in stored}:
            computed = compute_rows(session, protocol, judge)
            assert len(computed) == sum(key[:2] == (protocol, judge) for key in stored)
            for task, row in computed:
                expected, cells = stored[protocol, judge, task.key, row.baseline, row.contestant], row.cells()
                assert set(expected) == set(cells)
                for name, value in expected.items():
                    assert same(value, cells[name]), (row.contestant, task.name, name)


def test_the_leaderboard_is_what_the_reference_gives(reference: Store) -> None:
    assert (ROOT / "leaderboard.md").read_text(encoding="utf-8") == render(reference)


def test_the_reference_was_made_by_the_default_recipe_with_all_methods_on_three_seeds(reference: Store) -> None:
    with reference.read() as session:
        assert set(session.scalars(select(schema.Score.protocol_key))) == {
            make_plan(load_recipe(), ["sft"], 1).protocol_key
        }
        rows = session.scalars(select(schema.Score).where(schema.Score.baseline == "teacher")).all()
        seeds = {row.contestant: row.values["seeds"] for row in rows}
    methods = set(load_recipe().methods)
    assert set(seeds) == {"teacher", "student", *methods}
    assert {seeds[method] for method in methods} == {3}


def test_reading_the_reference_leaves_nothing_beside_it(reference: Store) -> None:
    with reference.read() as session:
        session.scalars(select(schema.Score)).all()
    assert not list(REFERENCE.parent.glob("reference.sqlite3-*"))


def test_the_reference_is_small(reference: Store) -> None:
    assert REFERENCE.stat().st_size < 20e6
