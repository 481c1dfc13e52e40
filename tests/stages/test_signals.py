"""Signals are scored once: what the store holds is what every later training reads."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.engine import LocalEngine
from dadpo_bench.models import Branching, training, weights_key
from dadpo_bench.progress import silent
from dadpo_bench.stages import signals
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.signals import Scored, Scoring, collect_all_signals, collect_signals
from dadpo_bench.store import open_store
from dadpo_bench.types import Pair, Prompt, Reply, SequenceLogProb

PROMPT = Prompt(id="p", turns=("Name three colours.",))


class Backwards(LocalEngine):
    """The last item's result comes first, as it may from workers."""

    def map(self, make: Any, items: Any, name: Any) -> Any:
        return reversed([*super().map(make, items, name)])


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Batches of one pair, and every batch gives other values, as bf16 does; counts them."""
    calls = count()

    def scores(model: Any, batch: Sequence[Branching], precision: Any) -> list[list[SequenceLogProb]]:
        shift = next(calls)
        return [[SequenceLogProb(-10.0 * i - shift, 3) for i, _ in enumerate(b.continuations)] for b in batch]

    monkeypatch.setattr(signals, "sequence_log_probs", scores)
    monkeypatch.setattr(signals, "PAIRS", 1)
    return calls


def opened(tiny_models: tuple[Path, Path], store: Path, engine: LocalEngine) -> tuple[Bench, LocalModel]:
    model = LocalModel("tiny", tiny_models[0], weights_key(tiny_models[0]))
    return Bench(open_store(str(store)), engine, silent()), model


def scored(rejected: str) -> Scored:
    return Scored(PROMPT, Reply(text="Red, green, blue."), Reply(text=rejected))


def test_a_response_in_a_second_pair_keeps_the_signal_it_got_in_the_first(
    tiny_models: tuple[Path, Path], tmp_path: Path, drifting: Iterator[int]
) -> None:
    bench, model = opened(tiny_models, tmp_path / "x.sqlite3", LocalEngine())

    def collect(rejected: str) -> Pair:
        (pair,) = collect_signals(bench, model, [scored(rejected)], training(), sampled=False, label="signals")
        return pair

    first, second = collect("Tea."), collect("Sugar.")
    assert second.chosen == first.chosen
    assert second.rejected != first.rejected
    assert (collect("Tea."), collect("Sugar.")) == (first, second)
    assert next(drifting) == 2


def test_the_first_pair_gives_a_shared_response_its_signal_whoever_is_done_first(
    tiny_models: tuple[Path, Path], tmp_path: Path, drifting: Iterator[int]
) -> None:
    found = []
    for engine in (LocalEngine(), Backwards()):
        began = next(drifting) + 1
        bench, model = opened(tiny_models, tmp_path / f"{type(engine).__name__}.sqlite3", engine)
        seeds = [
            Scoring(model, [scored("Tea."), scored("Sugar.")], training()),
            Scoring(model, [scored("Milk.")], training()),
        ]
        pairs = [pair for some in collect_all_signals(bench, seeds, sampled=False, label="signals") for pair in some]
        again = collect_all_signals(bench, seeds, sampled=False, label="signals")
        assert [pair for some in again for pair in some] == pairs
        assert {pair.chosen for pair in pairs} == {-float(began)}
        found.append([(pair.chosen + began, pair.rejected + began) for pair in pairs])
    assert found[0] == found[1]
