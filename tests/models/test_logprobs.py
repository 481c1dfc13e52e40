"""The chunked head: values and gradients of the plain computation, whatever the chunk."""

from typing import Any

import pytest
import torch
import transformers

from dadpo_bench.models import Branching, Head, Stream, hidden_states, logprobs, streaming, token_log_probs

PAIRS = [Branching([1, 7, 9], [[5, 350, 8], [699, 2]]), Branching([1, 4], [[299], [300, 9, 400]])]
"""Responses with tokens from all over a vocabulary of 700."""


def build(**changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 700, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(
        **sizes, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3, **changes
    )
    return transformers.LlamaForCausalLM(config)


def gradients(model: Any, weights: torch.Tensor, *, chunked: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    stream = Stream.pack(PAIRS, torch.device("cpu"))
    with streaming(model, stream.longest):
        hidden = hidden_states(model, stream)
        if chunked:
            values = token_log_probs(Head(model), hidden, stream, torch.float32)
        else:
            logits = model.lm_head(hidden).log_softmax(-1)
            values = logits.gather(1, stream.targets[:, None])[:, 0]
    model.zero_grad()
    (values * weights).sum().backward()
    return values.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("width", [300, 400, 1000])
def test_values_and_gradients_do_not_depend_on_the_slices_of_the_vocabulary(
    tied: bool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(tie_word_embeddings=tied)
    weights = torch.linspace(-1, 1, 9)
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", 4 * 9 * width)
    ours, our_gradients = gradients(model, weights, chunked=True)
    plain, plain_gradients = gradients(model, weights, chunked=False)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_soft_capped_head_is_applied() -> None:
    model = build()
    model.config.final_logit_softcapping = 2.0
    stream = Stream.pack(PAIRS, torch.device("cpu"))
    with torch.no_grad(), streaming(model, stream.longest):
        hidden = hidden_states(model, stream)
        ours = token_log_probs(Head(model), hidden, stream, torch.float32)
        capped = (torch.tanh(model.lm_head(hidden) / 2) * 2).log_softmax(-1)
    torch.testing.assert_close(ours, capped.gather(1, stream.targets[:, None])[:, 0])


def test_a_logit_scale_that_the_head_would_ignore_is_refused() -> None:
    model = build()
    model.config.logit_scale = 0.5
    with pytest.raises(RuntimeError, match="logit_scale"):
        Head(model)
