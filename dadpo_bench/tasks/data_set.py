"""What a task is made of: its prompts, and the baseline's answers where its source carries them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dadpo_bench.errors import UserError
from dadpo_bench.types import Prompt

ID, LABEL = 200, 80
"""Characters of a prompt's id and category at most: stores keep no longer ones."""


class TaskData(NamedTuple):
    """A split of a task, as its source gives it."""

    prompts: tuple[Prompt, ...]
    """In the source's order, each content once."""
    baseline: Mapping[str, tuple[str, ...]] | None = None
    """By prompt id: the baseline's replies, one a turn; None where the source's files do not carry them."""
    baseline_name: str = ""
    """Who wrote them."""
    duplicates: int = 0
    """Repeated prompts that were left out."""


class Read(NamedTuple):
    """A prompt with what its record says of the baseline."""

    prompt: Prompt
    replies: tuple[str, ...] = ()
    generator: str = ""


def assembled(read: Iterable[Read], baseline_name: str = "") -> TaskData:
    """One task's data. A prompt that occurs again is left out and counted; so is its answer.

    `baseline_name` is used where the records do not name who answered.

    Raises `UserError` where two systems' answers are mixed.
    """
    kept: dict[str, Read] = {}
    count = 0
    for item in read:
        count += 1
        kept.setdefault(item.prompt.key, item)
    items = list(kept.values())
    answered = {item.prompt.id: item.replies for item in items if item.replies}
    names = {item.generator for item in items if item.generator}
    if len(names) > 1:
        raise UserError(f"answers of several systems in one file of baselines: {', '.join(sorted(names)[:3])}")
    return TaskData(
        tuple(item.prompt for item in items),
        answered or None,
        (names.pop() if names else baseline_name) if answered else "",
        count - len(items),
    )


def checked(prompt: Prompt, place: str) -> Prompt:
    """The prompt, where it can be asked. Raises `UserError` for an empty turn and for what no database keeps."""
    if len(prompt.id) > ID or len(prompt.category) > LABEL:
        raise UserError(f"{place}: a prompt has an id of at most {ID} characters, a category of at most {LABEL}")
    if not prompt.turns or not all(turn.strip() for turn in prompt.turns):
        raise UserError(f"{place}: a prompt needs at least one turn, and none may be empty")
    labels, guides = (prompt.id, prompt.category), (*prompt.reference, *prompt.checklist)
    if any("\0" in text for text in (*labels, *prompt.turns, prompt.system, *guides)):
        raise UserError(f"{place}: it holds a NUL (\\u0000), which is no text")
    return prompt


def field(record: Any, name: str, place: str) -> str:
    """The text of that name. Raises `UserError` where the record has none."""
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, str):
        raise UserError(f"{place}: no text '{name}'; {shape(record)}")
    return value


def texts(record: Any, name: str, place: str) -> tuple[str, ...]:
    """The list of texts of that name. Raises `UserError` where the record has none."""
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{place}: no list of texts '{name}'; {shape(record)}")
    return tuple(value)


def shape(record: Any) -> str:
    """What a record that was not understood consists of, in a few words."""
    if not isinstance(record, Mapping):
        return f"the record is {_article(type(record).__name__)}"
    return f"its fields: {', '.join(str(name)[:40] for name in list(record)[:12]) or 'none'}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def user_turns(messages: Any, place: str) -> Iterator[str]:
    """The user's turns of ChatML (`role`, `content`) or ShareGPT (`from`, `value`) messages, in order.

    Raises `UserError` for anything else.
    """
    for message in _messages(messages, place):
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        if role in ("user", "human"):
            if not isinstance(content, str):
                raise UserError(f"{place}: a user's message without text")
            yield content


def system_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What messages that `user_turns` could read say as the system."""
    said = [m.get("content", m.get("value")) for m in messages if m.get("role", m.get("from")) == "system"]
    return "\n\n".join(text for text in said if isinstance(text, str))


def _messages(messages: Any, place: str) -> list[Mapping[str, Any]]:
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise UserError(f"{place}: messages are a list of objects with role and content (or from and value)")
    return messages
