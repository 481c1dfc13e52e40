"""What the pre-flight must catch before the first update."""

from pathlib import Path

import pytest
import torch

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import WorkError
from dadpo_bench.models import Branching, Precision, chat_tokenizer, load_model, respond, sequence_log_probs
from dadpo_bench.progress import silent
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.signals import check_teacher, local_scores
from dadpo_bench.types import Example, Finish, Pair, Prompt, Reply, Sampling
from tests.empty_store import empty_store
from trainers.preflight import preflight

FP32 = Precision(torch.float32, torch.float32)


def example(chosen: Reply, rejected: Reply, signals: Pair) -> Example:
    prompt = Prompt(id="p", turns=("Name three colours.",))
    return Example(prompt=prompt, chosen=chosen, rejected=rejected, signals={"reference": signals})


@pytest.fixture
def sound(tiny: Path) -> tuple[Example, Branching]:
    chosen, rejected = Reply(text="Red, green, blue."), Reply(text="Tea.", finish=Finish.length)
    tokenizer = chat_tokenizer(str(tiny))
    branching = tokenizer.branching(Prompt(id="p", turns=("Name three colours.",)), [chosen, rejected], sampled=False)
    (scores,) = sequence_log_probs(load_model(tiny, FP32), [branching], FP32)
    return example(chosen, rejected, Pair(*(s.total for s in scores))), branching


def check(tiny: Path, given: Example, branching: Branching) -> dict[str, object]:
    return preflight(load_model(tiny, FP32), chat_tokenizer(str(tiny)), [given], [branching], FP32)


def test_a_sound_start_passes_and_is_recorded(tiny: Path, sound: tuple[Example, Branching]) -> None:
    found = check(tiny, *sound)
    assert found["reference_difference"] == pytest.approx(0, abs=1e-6)
    assert found["first_trained_text"] == "Red, green, blue.<|im_end|>"
    assert found["end_of_turn_token"] == "<|im_end|>"


def test_swapped_chosen_and_rejected_are_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    swapped = example(given.chosen, given.rejected, Pair(*given.signals["reference"][::-1]))
    with pytest.raises(WorkError, match="differs from its stored reference"):
        check(tiny, swapped, branching)


def test_a_shifted_mask_is_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    chosen, rejected = branching.continuations
    shifted = Branching([*branching.prompt, chosen[0]], [chosen[1:], rejected])
    with pytest.raises(WorkError, match="differs from its stored reference"):
        check(tiny, given, shifted)


def test_another_template_is_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    with pytest.raises(WorkError, match="differs from its stored reference"):
        check(tiny, given, Branching(branching.prompt[:-3], branching.continuations))


def test_a_half_precision_reference_is_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    half = Precision(torch.bfloat16, torch.bfloat16)
    (scores,) = sequence_log_probs(load_model(tiny, half), [branching], half)
    with pytest.raises(WorkError, match="number format"):
        check(tiny, example(given.chosen, given.rejected, Pair(*(s.total for s in scores))), branching)


def test_a_cut_response_with_an_end_of_turn_is_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    cut = given.model_copy(update={"chosen": Reply(text="Red, green, blue.", finish=Finish.length)})
    with pytest.raises(WorkError, match="cut response"):
        check(tiny, cut, branching)


def test_an_ended_response_without_its_end_of_turn_is_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    with pytest.raises(WorkError, match="without its end-of-turn"):
        check(tiny, given, Branching(branching.prompt, [branching.continuations[0][:-1], branching.continuations[1]]))


def test_an_id_beyond_the_vocabulary_is_caught(tiny: Path, sound: tuple[Example, Branching]) -> None:
    given, branching = sound
    with pytest.raises(WorkError, match="vocabulary rows"):
        check(tiny, given, Branching([*branching.prompt, 100_000], branching.continuations))


def test_a_teacher_that_did_not_write_the_responses_is_caught(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(empty_store(tmp_path / "x.sqlite3"), LocalEngine(), silent())
    tokenizer, scores = chat_tokenizer(str(tiny)), local_scores(bench, LocalModel("tiny", tiny, "key"), FP32)
    prompts = [Prompt(id=str(i), turns=(text,)) for i, text in enumerate(("Tea?", "What is France?", "Red or blue?"))]
    greedy = Sampling(temperature=0, max_new_tokens=12)
    written = [
        r.replies[0] for r in respond(load_model(tiny, FP32), chat_tokenizer(str(tiny)), prompts, greedy, seed=0)
    ]
    own = [Example(prompt=p, chosen=reply) for p, reply in zip(prompts, written, strict=True)]
    check_teacher("tiny", tokenizer, scores, own, sampled=True)
    # Each prompt with the response to the one before it: the next pair's response is then its own.
    displaced = [Example(prompt=p, chosen=reply) for p, reply in zip(prompts, written[-1:] + written[:-1], strict=True)]
    with pytest.raises(WorkError, match="is this the model"):
        check_teacher("tiny", tokenizer, scores, displaced, sampled=True)
