"""Rendering conversations by a model's own chat template, and the token ids that train and score it.

Prompt and response are encoded apart and joined as ids, so the prompt is a strict prefix by construction
and no id of one depends on the other. Text is data: a control token written in a message stays text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.models.stream import Branching
from dadpo_bench.types import Finish, Message, Prompt, Reply

_PROBE = "0probe0"


class ChatTokenizer:
    """A tokenizer with a chat template, reduced to what the bench asks of it."""

    def __init__(self, tokenizer: Any, longest: int | None = None) -> None:
        self.raw = tokenizer
        self.longest = longest
        """Ids of a prompt that the model is shown at most; None: all of them."""
        self.pad_id: int = tokenizer.pad_token_id
        self._control = sorted(
            {str(token) for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens),
            key=len,
            reverse=True,
        )
        self.end_of_turn_id = self._find_end_of_turn()

    def _find_end_of_turn(self) -> int:
        """The token the template puts behind an assistant message, else the end-of-text token."""
        rendered = self._render([Message(role="user", content=_PROBE), Message(role="assistant", content=_PROBE)])
        if rendered.count(_PROBE) < 2:
            raise UserError("the chat template leaves out what user or assistant say")
        tail = self.raw.encode(rendered.rpartition(_PROBE)[2].lstrip(), add_special_tokens=False)
        special = set(self.raw.all_special_ids) | set(self.raw.added_tokens_decoder)
        return int(tail[0]) if tail and tail[0] in special else int(self.raw.eos_token_id)

    def _render(self, messages: Sequence[Message], *, reply: bool = False) -> str:
        try:
            text: str = self.raw.apply_chat_template(
                [m.model_dump() for m in messages], tokenize=False, add_generation_prompt=reply
            )
        except Exception as error:  # jinja errors of a broken template come in every type
            roles = ", ".join(m.role for m in messages)
            raise UserError(f"the chat template cannot render a conversation of {roles}: {error}") from error
        return text

    def neutralise(self, text: str) -> str:
        """`text` with every control token broken by a zero-width space, so that it cannot act as one."""
        for token in self._control:
            if len(token) > 1 and token in text:
                text = text.replace(token, f"{token[0]}\u200b{token[1:]}")
        return text

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of the conversation up to where the reply begins, at most `longest` of them.

        Of a longer one the oldest goes first: whole exchanges, then the beginning of the question that is left.
        Template, system text and a template's own BOS, the only one, stay.
        """
        if not self.too_long(messages):
            return self._all_prompt_ids(messages)
        said = [m for m in messages if m.role != "system"]
        system = [m for m in messages if m.role == "system"]
        while len(said) > 1 and self.too_long([*system, *said]):
            said = said[2:]
        question = said[0].content

        def from_character(start: int) -> list[Message]:
            return [*system, Message(role="user", content=question[start:]), *said[1:]]

        fitting = range(len(question) + 1)
        start = bisect_left(fitting, True, key=lambda start: not self.too_long(from_character(start)))
        # Where system text and template alone are too long, nothing better is left than their end.
        return self._all_prompt_ids(from_character(start))[-(self.longest or 0) :]

    def too_long(self, messages: Sequence[Message]) -> bool:
        """Whether `prompt_ids` leaves out some of the conversation's beginning."""
        return self.longest is not None and len(self._all_prompt_ids(messages)) > self.longest

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a whole conversation, ended as the template ends it, whatever their number.

        A template's own BOS is the only one: encoding a rendered text the usual way puts another before it.
        """
        return self._rendered_ids(messages, reply=False)

    def _all_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self._rendered_ids(messages, reply=True)

    def _rendered_ids(self, messages: Sequence[Message], *, reply: bool) -> list[int]:
        safe = [Message(role=m.role, content=self.neutralise(m.content)) for m in messages]
        return list(self.raw.encode(self._render(safe, reply=reply), add_special_tokens=False))

    def reply_ids(self, reply: Reply, *, sampled: bool) -> list[int]:
        """Ids of a reply: as sampled where this tokenizer sampled it, else encoded from its text.

        End-of-turn is the last id of a reply that ended by itself, and absent from one that was cut.
        """
        if sampled and reply.token_ids:
            return list(reply.token_ids)
        ids = list(self.raw.encode(self.neutralise(reply.text), add_special_tokens=False))
        # An empty reply said nothing but that it was over.
        return [*ids, self.end_of_turn_id] if reply.finish is Finish.stop or not ids else ids

    def branching(self, prompt: Prompt, replies: Sequence[Reply], *, sampled: bool) -> Branching:
        """A single-turn prompt with alternative replies, as every method trains and every signal scores them."""
        return Branching(self.prompt_ids(prompt.messages()), [self.reply_ids(r, sampled=sampled) for r in replies])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without control tokens; of a reply's ids, exactly what the reader sees."""
        text: str = self.raw.decode(ids, skip_special_tokens=True)
        return text


@lru_cache(maxsize=4)
def chat_tokenizer(directory: str, chat_template: str | None = None) -> ChatTokenizer:
    """The chat tokenizer of a model directory, kept: four stages ask for the same one.

    A prompt may fill three quarters of the model's context; the rest is for the replies.
    """
    from pathlib import Path

    from dadpo_bench.models.loading import config_of, load_tokenizer

    context = config_of(Path(directory)).get("max_position_embeddings")
    return ChatTokenizer(load_tokenizer(Path(directory), chat_template), context and context * 3 // 4)
