"""Responses of several models, asked for in one go."""

from pathlib import Path

from dadpo_bench.engine import LocalEngine
from dadpo_bench.models import weights_key
from dadpo_bench.progress import silent
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import Request, collect_all_responses, collect_responses
from dadpo_bench.types import Prompt, Sampling
from tests.empty_store import empty_store

TURNS = (("Say three, please, and then four.",), ("Tea?", "Milk?"), ("Red or blue?",))
PROMPTS = [Prompt(id=str(place), turns=turns) for place, turns in enumerate(TURNS)]
GREEDY = Sampling(temperature=0, max_new_tokens=4, batch_size=2)


def test_they_come_in_the_order_of_the_prompts_model_by_model(tiny_models: tuple[Path, Path], tmp_path: Path) -> None:
    bench = Bench(empty_store(tmp_path / "x.sqlite3"), LocalEngine(), silent())
    models = [LocalModel(path.name, path, weights_key(path)) for path in tiny_models]
    requests = [Request(model, PROMPTS, GREEDY, 0) for model in models]
    together = collect_all_responses(bench, [*requests, requests[0]], "test")
    # Batches hold prompts by their lengths; what is trained on is in the order of the prompts.
    assert [[s.response.prompt.key for s in found] for found in together] == [[p.key for p in PROMPTS]] * 3
    assert list(together[0]) == list(together[2])
    alone = Bench(empty_store(tmp_path / "y.sqlite3"), LocalEngine(), silent())
    for model, found in zip(models, together, strict=False):
        again = collect_responses(alone, model, PROMPTS, GREEDY, 0, "test")
        assert [(s.key, s.response.text) for s in again] == [(s.key, s.response.text) for s in found]
