"""The committed stores: every stored score follows from stored verdicts, and the board from the scores."""

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dadpo_bench.leaderboard import render
from dadpo_bench.places import COMMITTED_STORES
from dadpo_bench.plan import make_plan
from dadpo_bench.recipe import load_recipe
from dadpo_bench.scores import compute_rows
from dadpo_bench.store import Store, open_store, schema

ROOT = Path(__file__).parents[2]
REFERENCE, METHODS = (ROOT / path for path in COMMITTED_STORES)
MAIN = {"sft", "kd", "dpo", "dpo-matched", "dadpo"}
BESIDE = {"sft", "dpo", "dadpo", "dpkd", "ipo", "distillm2", "on_policy_kd"}


@pytest.fixture(scope="module", params=[REFERENCE, METHODS], ids=lambda path: path.stem)
def committed(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_store(str(request.param), create=False)
    yield store
    store.close()


def same(stored: Any, computed: Any) -> bool:
    if isinstance(stored, float) and isinstance(computed, float):
        return math.isclose(stored, computed, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(stored, list | tuple):
        return len(stored) == len(computed) and all(map(same, stored, computed))
    return bool(stored == computed)


def test_every_stored_score_is_what_its_verdicts_give(committed: Store) -> None:
    with committed.read() as session:
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


def test_the_leaderboard_is_what_the_committed_stores_give(committed: Store) -> None:
    assert (ROOT / "leaderboard.md").read_text(encoding="utf-8") == render(committed)


@pytest.mark.parametrize(("path", "methods", "seeds"), [(REFERENCE, MAIN, 3), (METHODS, BESIDE, 1)])
def test_a_committed_store_was_made_by_the_default_recipe(path: Path, methods: set[str], seeds: int) -> None:
    with closing(open_store(str(path), create=False)) as store, store.read() as session:
        assert set(session.scalars(select(schema.Score.protocol_key))) == {
            make_plan(load_recipe(), ["sft"], 1).protocol_key
        }
        rows = session.scalars(select(schema.Score).where(schema.Score.baseline == "teacher")).all()
        found = {row.contestant: row.values["seeds"] for row in rows}
    assert found == {"teacher": 1, "student": 1} | dict.fromkeys(methods, seeds)


def test_reading_a_committed_store_leaves_nothing_beside_it(committed: Store) -> None:
    with committed.read() as session:
        session.scalars(select(schema.Score)).all()
    assert not list((ROOT / "results").glob(f"{committed.path.name if committed.path else ''}-*"))


def test_the_committed_stores_are_small() -> None:
    assert REFERENCE.stat().st_size + METHODS.stat().st_size < 20e6
