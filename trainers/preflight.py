"""Checks before the first update, each with a clear error: a wrong mask or template trains another model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dadpo_bench.errors import WorkError
from dadpo_bench.models import Branching, ChatTokenizer, Precision, token_scores
from dadpo_bench.types import Example, Finish

EXAMPLES = 4
"""Examples scored again before training."""


def tolerance(precision: Precision) -> float:
    """Nats a token by which the same model may differ from itself: bf16 moves with the batch's shape."""
    return 1e-3 if precision.compute == torch.float32 else 0.05


def preflight(
    model: Any,
    tokenizer: ChatTokenizer,
    examples: Sequence[Example],
    branchings: Sequence[Branching],
    precision: Precision,
) -> dict[str, Any]:
    """Check the policy against itself and the stored reference; returns the figures, for the record.

    Raises `WorkError` where the fast path disagrees with a plain forward pass, where the policy is not the
    reference whose signals are stored, or where an end-of-turn token is missing or out of place.
    """
    _check_tokens(tokenizer, examples, branchings, model)
    few = range(min(EXAMPLES, len(branchings)))
    scores = token_scores(model, [branchings[i] for i in few], precision)
    found: dict[str, Any] = {
        "end_of_turn_token": tokenizer.raw.convert_ids_to_tokens(tokenizer.end_of_turn_id),
        "vocabulary_rows": model.get_input_embeddings().weight.shape[0],
        "template_round_trip": _round_trip(tokenizer, branchings[0].prompt),
        "cut_share": sum(e.chosen.finish is Finish.length for e in examples) / len(examples),
    }
    found["plain_forward_difference"] = _check_plain(model, branchings[0], scores[0], precision)
    differences = [
        abs(sum(ours) - stored) / len(ours)
        for i in few
        if "reference" in examples[i].signals
        for ours, stored in zip(scores[i], examples[i].signals["reference"], strict=False)
    ]
    if differences:
        # bf16 moves single sequences with the batch's shape; fp32 has no such excuse.
        strict = precision.compute == torch.float32
        found["reference_difference"] = max(differences) if strict else sum(differences) / len(differences)
        if found["reference_difference"] > tolerance(precision):
            raise WorkError(
                f"the policy differs from its stored reference by {found['reference_difference']:.4f} nats a token "
                f"(at most {tolerance(precision)}): another model, template, order of the pair or number format"
            )
    found["first_trained_text"] = tokenizer.raw.decode(branchings[0].continuations[0])
    return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What a person should see of the figures before the first update."""
    agreement = f"plain forward pass within {found['plain_forward_difference']:.4f} nats a token"
    if "reference_difference" in found:
        agreement += f", stored reference within {found['reference_difference']:.4f}"
    yield (
        f"pre-flight: end-of-turn {found['end_of_turn_token']}, {found['vocabulary_rows']:,} vocabulary rows, "
        f"{100 * found['cut_share']:.0f} % of responses cut, template round trip "
        f"{'exact' if found['template_round_trip'] else 'NOT exact'}"
    )
    yield f"pre-flight: {agreement}"
    yield f"pre-flight: first trained text, decoded: {found['first_trained_text'][:160]!r}"


def _round_trip(tokenizer: ChatTokenizer, ids: Sequence[int]) -> bool:
    """Whether a rendered prompt's ids decode to a text that has these ids again."""
    return list(tokenizer.raw.encode(tokenizer.raw.decode(ids), add_special_tokens=False)) == list(ids)


def _check_tokens(
    tokenizer: ChatTokenizer, examples: Sequence[Example], branchings: Sequence[Branching], model: Any
) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    bos = tokenizer.raw.bos_token_id
    for example, branching in zip(examples, branchings, strict=True):
        where = f"prompt {example.prompt.id}"
        if max(max(branching.prompt), *(max(y) for y in branching.continuations)) >= rows:
            raise WorkError(f"{where}: a token id lies beyond the model's {rows} vocabulary rows")
        if bos is not None and bos != tokenizer.end_of_turn_id and list(branching.prompt[:2]) == [bos, bos]:
            raise WorkError(f"{where}: the prompt begins with two {tokenizer.raw.bos_token} tokens")
        replies = (example.chosen, example.rejected)
        for reply, ids in zip(replies, branching.continuations, strict=False):
            ended = ids[-1] == tokenizer.end_of_turn_id
            if reply is not None and reply.text and (reply.finish is Finish.stop) and not ended and not reply.token_ids:
                raise WorkError(f"{where}: a response that ended by itself is trained without its end-of-turn token")
            if reply is not None and reply.text and reply.finish is Finish.length and ended:
                raise WorkError(f"{where}: a cut response is trained with an end-of-turn token")


def _check_plain(model: Any, branching: Branching, scores: Sequence[Sequence[float]], precision: Precision) -> float:
    """Score one example by `model(input_ids)`, which shares no code with the stream; mean difference a token.

    Against plain fp32: half-precision arithmetic is allowed twice the error that a plain pass in it makes, as much
    as that is on this model.
    """
    worst = 0.0
    exact = Precision(precision.weights, precision.weights)
    for continuation, ours in zip(branching.continuations, scores, strict=True):
        truth = _plain(model, branching.prompt, continuation, exact)
        difference = float((torch.tensor(ours, device=truth.device) - truth).abs().mean())
        noise = float((_plain(model, branching.prompt, continuation, precision) - truth).abs().mean())
        if difference > 2 * noise + tolerance(exact):
            raise WorkError(
                f"the stream's log-probs are {difference:.4f} nats a token from a plain forward pass in "
                f"{exact.compute}, where {2 * noise + tolerance(exact):.4f} would be rounding: "
                f"{type(model).__name__} does not take its attention from transformers' interface as expected"
            )
        worst = max(worst, difference)
    return worst


@torch.no_grad()
def _plain(model: Any, prompt: Sequence[int], continuation: Sequence[int], precision: Precision) -> Tensor:
    """(tokens,) log-probs of the continuation."""
    ids = torch.tensor([[*prompt, *continuation]], device=model.device)
    with precision.autocast():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
    scores: Tensor = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
    return scores
