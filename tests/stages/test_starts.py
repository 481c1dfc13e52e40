"""What every method is given to begin with: the model it trains, its examples, its signals."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dadpo_bench import pipeline
from dadpo_bench.engine import LocalEngine
from dadpo_bench.models import chat_tokenizer, precision
from dadpo_bench.plan import Plan, make_plan
from dadpo_bench.planning import estimate
from dadpo_bench.progress import silent
from dadpo_bench.recipe import load_recipe
from dadpo_bench.stages import Stage
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import Store, open_store, schema
from dadpo_bench.types import Prompt


def plan(recipe: Path, *contestants: str) -> Plan:
    return make_plan(load_recipe(str(recipe)), contestants, 1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")
    precision.compute_dtype.cache_clear()
    return open_store(str(tmp_path / "local.sqlite3"))


def test_methods_beside_dadpo_train_from_dsft_on_what_they_say(
    tiny_recipe: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, tuple[str, bool, set[str]]] = {}

    def noting(bench: Bench, name: str, settings: Any, start: Any, teacher: Any, examples: Any, *rest: Any, **kw: Any):  # type: ignore[no-untyped-def]
        given[name] = (start.name, examples[0].rejected is not None, set(examples[0].signals))
        return train(bench, name, settings, start, teacher, examples, *rest, **kw)

    train = pipeline.train
    monkeypatch.setattr(pipeline, "train", noting)
    asked = plan(tiny_recipe, "kd", "dpo", "dpkd", "distillm2", "on_policy_kd")
    pipeline.run(Bench(store, LocalEngine(), silent()), asked, {}, Stage.train)
    student = given["sft"][0]
    assert given == {
        "sft": (student, False, set()),
        "kd": (student, False, set()),
        "dpo": ("sft", True, {"reference"}),
        "dpkd": ("sft", True, {"teacher"}),
        "distillm2": ("sft", True, set()),
        "on_policy_kd": ("sft", False, set()),
    }


@pytest.mark.parametrize(
    ("contestant", "pairs", "scorers"), [("dadpo", 6, 2), ("dpkd", 6, 1), ("distillm2", 6, 0), ("on_policy_kd", 0, 0)]
)
def test_only_signals_that_are_read_are_scored_and_estimated(
    contestant: str, pairs: int, scorers: int, tiny_recipe: Path, store: Store, tmp_path: Path
) -> None:
    asked = plan(tiny_recipe, contestant)
    pipeline.run(Bench(store, LocalEngine(), silent()), asked, {}, Stage.signals)
    with store.read() as session:
        assert len(set(session.scalars(select(schema.Signal.model_key)))) == scorers
    costs = {cost.stage: cost for cost in estimate(asked, str(tmp_path / "none.sqlite3"))}
    assert costs[str(Stage.student_responses)].items == pairs
    assert bool(costs[str(Stage.signals)].tokens) == bool(scorers)


def test_a_pair_that_every_method_leaves_out_is_not_scored_and_counted_by_each(
    tiny_recipe: Path, tiny_models: tuple[Path, Path], store: Store
) -> None:
    tokenizer = chat_tokenizer(str(tiny_models[1]))
    longer, longest = (Prompt(id=f"{n} times", turns=("Name three colours. " * n,)) for n in (6, 12))
    with (tiny_recipe.parent / "training.jsonl").open("a") as file:
        file.writelines(json.dumps({"id": p.id, "turns": list(p.turns)}) + "\n" for p in (longer, longest))
    # A pair adds 2 to 16 tokens to its prompt, so the longer one is too long for dpo alone.
    room = len(tokenizer.prompt_ids(longer.messages()))
    assert len(tokenizer.prompt_ids(longest.messages())) > room + 16
    limits = [f"methods.dpo.max_tokens={room}", f"methods.dadpo.max_tokens={room + 16}"]
    asked = make_plan(load_recipe(str(tiny_recipe), limits), ("dpo", "dadpo"), 1)
    pipeline.run(Bench(store, LocalEngine(), silent()), asked, {}, Stage.train)
    with store.read() as session:
        scored = [signal.tokens_key for signal in session.scalars(select(schema.Signal))]
        dropped = {
            made.settings["method"]: made.record["preflight"]["dropped_examples"]
            for made in session.scalars(select(schema.Derivation).where(schema.Derivation.kind == "train"))
        }
    assert max(Counter(scored).values()) == 2  # by reference and teacher
    assert len(scored) == 2 * 2 * 7
    assert dropped == {"sft": 0, "dpo": 2, "dadpo": 1}
