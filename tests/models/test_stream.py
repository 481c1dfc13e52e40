"""The prefix-shared stream gives every model the log-probs that a plain forward pass gives, and leaks nothing."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from dadpo_bench.models import (
    Branching,
    Precision,
    Stream,
    batches_by_tokens,
    longest_sequence,
    sequence_log_probs,
    streaming,
    token_scores,
)
from dadpo_bench.models.attention import segment_attention

FP32 = Precision(torch.float32, torch.float32)
SIZES = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=12),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=None),
    "gemma": lambda: transformers.GemmaConfig(**SIZES, head_dim=12),
}
PAIRS = [
    Branching([1, 7, 9, 30], [[5, 6, 8], [100, 2]]),
    Branching([1, 44], [[3], [9, 9, 9, 9, 2]]),
    Branching([1, 8, 15, 16, 23, 42], [[4, 8, 15, 16, 23, 42, 2], [108]]),
]


def build(name: str) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).float().eval()


def plain(model: Any, prompt: list[int], continuation: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *continuation]])).logits[0].float()
    ahead = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return ahead.gather(1, torch.tensor(continuation)[:, None])[:, 0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stream_gives_the_log_probs_of_a_plain_forward_pass(name: str) -> None:
    model = build(name)
    for pair, scores in zip(PAIRS, token_scores(model, PAIRS, FP32), strict=True):
        for continuation, ours in zip(pair.continuations, scores, strict=True):
            torch.testing.assert_close(torch.tensor(ours), plain(model, pair.prompt, continuation), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_token_of_one_response_or_pair_moves_another(name: str) -> None:
    model = build(name)
    before = token_scores(model, PAIRS, FP32)
    changed = [Branching(PAIRS[0].prompt, [[200, 201, 202], PAIRS[0].continuations[1]]), *PAIRS[1:]]
    after = token_scores(model, changed, FP32)
    assert after[0][0] != before[0][0]
    assert after[0][1] == before[0][1]
    assert after[1:] == before[1:]


def test_a_prompt_is_computed_once_for_both_responses() -> None:
    stream = Stream.pack(PAIRS, torch.device("cpu"))
    assert stream.input_ids.shape[1] == (4 + 3 + 2) + (2 + 1 + 5) + (6 + 7 + 1)
    # The second response's positions start again behind the prompt of four tokens.
    assert stream.position_ids[0, :9].tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 5]


UNSTREAMABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "window": (lambda: transformers.MistralConfig(**SIZES, sliding_window=4), "longer than the sliding window of 4"),
    "mixed windows": (
        lambda: transformers.Gemma3TextConfig(**SIZES, head_dim=12, sliding_window=4, layer_types=MIXED),
        "longer than the sliding window of 4",
    ),
    "soft-capped": (lambda: transformers.Gemma2Config(**SIZES, head_dim=12, sliding_window=64), "soft-capped"),
    "recurrent": (
        lambda: transformers.MambaConfig(vocab_size=211, hidden_size=48, num_hidden_layers=2, initializer_range=0.2),
        "it does not take its attention|differ from those of single rows",
    ),
}
MIXED = ["full_attention", "sliding_attention", "full_attention"]


@pytest.mark.parametrize("name", UNSTREAMABLE)
def test_a_model_that_cannot_read_streams_is_read_row_by_row_and_says_why(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, reason = UNSTREAMABLE[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config()).float().eval()
    if getattr(model.config, "final_logit_softcapping", None):
        model.config.attn_logit_softcapping = 2.0
    scores = token_scores(model, PAIRS, FP32)
    assert re.search(reason, caplog.text)
    for pair, both in zip(PAIRS, scores, strict=True):
        for continuation, ours in zip(pair.continuations, both, strict=True):
            torch.testing.assert_close(torch.tensor(ours), plain(model, pair.prompt, continuation), rtol=0, atol=1e-5)


def test_a_window_as_long_as_the_sequences_streams() -> None:
    config = transformers.MistralConfig(**SIZES, sliding_window=13)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with streaming(model, longest_sequence(PAIRS)) as reason:
        assert reason is None


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_dense_attention_gives_the_values_and_gradients_of_torchs_own(heads: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    stream = Stream.pack(PAIRS, torch.device("cpu"))
    tokens = stream.input_ids.shape[1]
    given = [torch.randn(1, h, tokens, 16, generator=generator) for h in (heads[0], heads[1], heads[1])]
    upstream = torch.randn(1, tokens, heads[0], 16, generator=generator)

    def results(dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.to(dtype, copy=True).requires_grad_() for t in given]
        out, _ = segment_attention(torch.nn.Module(), *leaves, None, layout=stream.layout)
        (out.float() * upstream).sum().backward()
        return [out.detach(), *(leaf.grad for leaf in leaves)]

    # In bf16 on a CPU the dense products are taken, in fp32 torch's kernel.
    for dense, exact in zip(results(torch.bfloat16), results(torch.float32), strict=True):
        assert (dense.float() - exact).norm() / exact.norm() < 0.01


def test_attention_is_what_it_was_after_streaming() -> None:
    model = build("llama")
    before = model.config._attn_implementation
    sequence_log_probs(model, PAIRS, FP32)
    assert model.config._attn_implementation == before


def test_sequence_log_prob_is_the_sum_over_the_response() -> None:
    model = build("llama")
    (first, _), *_ = sequence_log_probs(model, PAIRS, FP32)
    assert first.tokens == 3
    assert first.total == pytest.approx(float(plain(model, [1, 7, 9, 30], [5, 6, 8]).sum()), abs=1e-4)


def test_batches_hold_at_most_the_limit_and_keep_the_order() -> None:
    # 9, 8 and 14 unique tokens.
    assert batches_by_tokens(PAIRS, 17) == [[0, 1], [2]]
    assert batches_by_tokens(PAIRS, 1) == [[0], [1], [2]]


def test_a_branching_needs_tokens() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        Branching([1], [[]])
