"""Signals are scored once: what the store holds is what every later training reads."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.engine import LocalEngine
from dadpo_bench.models import Branching, training, weights_key
from dadpo_bench.progress import silent
from dadpo_bench.stages import signals
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.signals import Scored, collect_signals
from dadpo_bench.store import open_store
from dadpo_bench.types import Pair, Prompt, Reply, SequenceLogProb

PROMPT = Prompt(id="p", turns=("Name three colours.",))


def test_a_response_in_a_second_pair_keeps_the_signal_it_got_in_the_first(
    tiny_models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count()

    def drifting(model: Any, batch: Sequence[Branching], precision: Any) -> list[list[SequenceLogProb]]:
        """As bf16 does: another batch, another value."""
        shift = next(calls)
        return [[SequenceLogProb(-10.0 * i - shift, 3) for i, _ in enumerate(b.continuations)] for b in batch]

    monkeypatch.setattr(signals, "sequence_log_probs", drifting)
    bench = Bench(open_store(str(tmp_path / "x.sqlite3")), LocalEngine(), silent())
    model = LocalModel("tiny", tiny_models[0], weights_key(tiny_models[0]))

    def collect(rejected: str) -> Pair:
        scored = Scored(PROMPT, Reply(text="Red, green, blue."), Reply(text=rejected))
        (pair,) = collect_signals(bench, model, [scored], training(), sampled=False, label="signals")
        return pair

    first, second = collect("Tea."), collect("Sugar.")
    assert second.chosen == first.chosen
    assert second.rejected != first.rejected
    assert (collect("Tea."), collect("Sugar.")) == (first, second)
    assert next(calls) == 2
