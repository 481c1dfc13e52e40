"""Sampling replies in batches. A batch is a function of the full prompt list, so it is the unit of resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dadpo_bench.models.chat import ChatTokenizer
from dadpo_bench.models.loading import quiet_transformers
from dadpo_bench.models.precision import device
from dadpo_bench.models.sampling import Draw
from dadpo_bench.types import Finish, Message, Prompt, Reply, Response, Sampling, content_key

SAMPLER_VERSION = 3
"""Part of every response's key: raise it when a change here or in `Draw` moves samples, and with a default of
`Sampling`."""


def batches(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Prompts of similar length and equal turns together; the same list gives the same batches, always."""
    ordered = sorted(prompts, key=lambda p: (len(p.turns), sum(map(len, p.turns)), p.key))
    groups: list[list[Prompt]] = []
    for prompt in ordered:
        if not groups or len(groups[-1]) == size or len(groups[-1][0].turns) != len(prompt.turns):
            groups.append([])
        groups[-1].append(prompt)
    return groups


def respond(
    model: Any, tokenizer: ChatTokenizer, prompts: Sequence[Prompt], sampling: Sampling, seed: int
) -> list[Response]:
    """The model's replies to every turn of one batch of prompts, each turn given the replies before it."""
    replies: list[list[Reply]] = [[] for _ in prompts]
    for turn in range(max(len(p.turns) for p in prompts)):
        conversations = [p.messages(tuple(r.text for r in done)) for p, done in zip(prompts, replies, strict=True)]
        drawn = _reply(model, tokenizer, conversations, sampling, [_seed(seed, p, turn) for p in prompts])
        for done, reply in zip(replies, drawn, strict=True):
            done.append(reply)
    return [Response(prompt=p, replies=tuple(done)) for p, done in zip(prompts, replies, strict=True)]


def _seed(seed: int, prompt: Prompt, turn: int) -> int:
    return int(content_key(seed, prompt.key, turn)[:15], 16)


def _reply(
    model: Any,
    tokenizer: ChatTokenizer,
    conversations: Sequence[Sequence[Message]],
    sampling: Sampling,
    seeds: Sequence[int],
) -> list[Reply]:
    prompts = [tokenizer.prompt_ids(messages) for messages in conversations]
    draw = [Draw(sampling.temperature, sampling.top_p, seeds)] if sampling.temperature else []
    return continuations(model, tokenizer, prompts, sampling.max_new_tokens, draw)


# Not inference mode: in it autocast casts a policy's weights anew for every token, not once a batch.
@torch.no_grad()
def continuations(
    model: Any,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    limit: int,
    processors: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> list[Reply]:
    """What follows the ids of each prompt, in one batch: greedy but for logits processors, at most `limit` tokens.

    A limit of one token is one forward pass that keeps nothing. `stopped` is asked after every token.
    """
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), tokenizer.pad_id, device=device())
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    stops = stop_ids(model, tokenizer)
    with quiet_transformers():
        drawn = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=_settings(limit, stops, tokenizer.pad_id),
            logits_processor=list(processors),
            stopping_criteria=[lambda rows, _: torch.full((len(rows),), stopped(), device=rows.device)],
        )
    return [_reply_of(row, stops, tokenizer) for row in drawn[:, width:].tolist()]


def stop_ids(model: Any, tokenizer: ChatTokenizer) -> set[int]:
    """Ids that end a reply: the template's end-of-turn token and the model's own end tokens."""
    own = getattr(model.generation_config, "eos_token_id", None)
    return {tokenizer.end_of_turn_id, *(own if isinstance(own, list) else [own] if own is not None else [])}


def _settings(limit: int, stops: set[int], pad_id: int) -> Any:
    from transformers import GenerationConfig

    # A fresh config: a checkpoint's own generation defaults must not reach the samples.
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,  # where tokens are drawn, `Draw` does it
        max_new_tokens=limit,
        eos_token_id=sorted(stops),
        pad_token_id=pad_id,
        use_cache=limit > 1,
    )


def _reply_of(ids: Sequence[int], stops: set[int], tokenizer: ChatTokenizer) -> Reply:
    kept = list(_until_stop(ids, stops))
    finish = Finish.stop if kept and kept[-1] in stops else Finish.length
    return Reply(text=tokenizer.decode(kept).strip(), token_ids=tuple(kept), finish=finish)


def _until_stop(ids: Sequence[int], stops: set[int]) -> Iterator[int]:
    for token in ids:
        yield token
        if token in stops:
            return
