"""Sampling: a batch is a function of the prompt list, the recipe and the seed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.profiler import profile

from dadpo_bench.models import Precision, batches, chat_tokenizer, load_model, respond, tokenizer_key, weights_key
from dadpo_bench.types import Finish, Prompt, Sampling
from tests.tiny import build_tiny_model

FP32 = Precision(torch.float32, torch.float32)
PROMPTS = [
    Prompt(id=str(i), turns=turns)
    for i, turns in enumerate(
        [("Name three colours.",), ("Tea?", "And sugar?"), ("What is the capital of France?",), ("Say something.",)]
    )
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_batches_do_not_depend_on_the_order_of_the_prompts() -> None:
    assert batches(PROMPTS, 2) == batches(PROMPTS[::-1], 2)


def test_a_batch_holds_prompts_of_equally_many_turns() -> None:
    assert all(len({len(p.turns) for p in group}) == 1 for group in batches(PROMPTS, 3))
    assert sum(map(len, batches(PROMPTS, 3))) == len(PROMPTS)


def test_the_same_seed_gives_the_same_samples_and_another_does_not(tiny: Path) -> None:
    model, tokenizer = load_model(tiny, FP32), chat_tokenizer(str(tiny))
    sampling = Sampling(max_new_tokens=8)
    first, again, other = (respond(model, tokenizer, PROMPTS[:1], sampling, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_drawing_samples_leaves_the_global_random_state_alone(tiny: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    respond(load_model(tiny, FP32), chat_tokenizer(str(tiny)), PROMPTS[:1], Sampling(max_new_tokens=4), 0)
    assert torch.rand(1) == expected


def test_every_turn_is_answered(tiny: Path) -> None:
    (two_turn,) = respond(
        load_model(tiny, FP32), chat_tokenizer(str(tiny)), [PROMPTS[1]], Sampling(max_new_tokens=4), 0
    )
    assert len(two_turn.replies) == 2


def test_a_reply_at_the_limit_is_marked_as_cut(tiny: Path) -> None:
    drawn = respond(
        load_model(tiny, FP32), chat_tokenizer(str(tiny)), PROMPTS[:1], Sampling(temperature=0, max_new_tokens=3), 0
    )
    (reply,) = drawn[0].replies
    ended = reply.token_ids[-1] == chat_tokenizer(str(tiny)).end_of_turn_id
    assert reply.finish is (Finish.stop if ended else Finish.length)
    assert len(reply.token_ids) <= 3


def test_greedy_replies_are_the_likeliest_tokens(tiny: Path) -> None:
    model, tokenizer = load_model(tiny, FP32), chat_tokenizer(str(tiny))
    sampling = Sampling(temperature=0, max_new_tokens=5)
    # Beside a longer prompt, so that it is padded.
    (reply, _) = (r.replies[0] for r in respond(model, tokenizer, [PROMPTS[3], PROMPTS[2]], sampling, 0))
    ids = tokenizer.prompt_ids(PROMPTS[3].messages())
    for token in reply.token_ids:
        with torch.no_grad():
            assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)


def test_a_policy_that_answers_under_autocast_casts_its_weights_once(tiny: Path) -> None:
    precision = Precision(torch.float32, torch.bfloat16)
    model = load_model(tiny, precision)
    shapes = {tuple(p.shape) for p in model.parameters() if p.dim() == 2}
    with profile(record_shapes=True) as noted, precision.autocast():
        (drawn,) = respond(model, chat_tokenizer(str(tiny)), PROMPTS[:1], Sampling(max_new_tokens=4), 0)
    assert len(drawn.replies[0].token_ids) > 1
    casts = [e for e in noted.events() if e.name == "aten::_to_copy" and tuple((e.input_shapes or [()])[0]) in shapes]
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(casts) == len(linear)


def test_a_models_own_generation_defaults_do_not_reach_the_samples(tiny: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    defaults = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "suppress_tokens": list(range(5, 90))}
    (other / "generation_config.json").write_text(json.dumps(defaults))
    sampling = Sampling(temperature=0, max_new_tokens=12)
    plain, changed = (
        respond(load_model(d, FP32), chat_tokenizer(str(d)), PROMPTS[:1], sampling, 0) for d in (tiny, other)
    )
    assert plain == changed


def test_end_tokens_of_the_generation_defaults_are_part_of_a_models_key(tiny: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": [5]}))
    assert weights_key(other) != weights_key(tiny)


def test_a_tokenizer_is_known_by_what_it_does_not_by_its_files(tiny: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    (other / "vocab.json").write_text(json.dumps(chat_tokenizer(str(tiny)).raw.get_vocab()))
    (other / "merges.txt").write_text("#version: 0.2\n")
    assert tokenizer_key(other) == tokenizer_key(tiny)
    changed = json.loads((other / "tokenizer.json").read_text())
    changed["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(changed))
    assert tokenizer_key(other) != tokenizer_key(tiny)
