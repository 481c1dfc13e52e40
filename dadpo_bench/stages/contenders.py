"""Whoever `eval` ranks, and where the responses come from: a model on disk, one behind an endpoint, or given ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.exchange.parcel import Who
from dadpo_bench.exchange.stored import keep_contestant
from dadpo_bench.models import chat_tokenizer, find, weights_key
from dadpo_bench.models.loading import at_hand
from dadpo_bench.open_board import is_open
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.contestants import answer, enter
from dadpo_bench.stages.drawing import Drawing, draw
from dadpo_bench.stages.endpoint_responses import RemoteModel, collect_remote_responses
from dadpo_bench.stages.responses import Stored
from dadpo_bench.stages.students import note_model
from dadpo_bench.store import schema
from dadpo_bench.store.rows import to_prompt, to_response
from dadpo_bench.tasks import Task
from dadpo_bench.types import JsonObject, Prompt, Response


class Contender(Protocol):
    """Somebody who answers a task, or has answered it."""

    @property
    def name(self) -> str:
        """On the board."""
        ...

    @property
    def variant(self) -> str:
        """How it came to its answers, where that is more than its name says; tells baselines of a name apart."""
        ...

    def enter(self, bench: Bench, protocol_key: str, task: Task, kind: str) -> dict[str, Stored]:
        """Have it answer what it owes, and note it and its answers on a board; by prompt key, those that there are."""
        ...


@dataclass(frozen=True)
class Given:
    """Whose responses were there before: imported, or the task's own baseline."""

    name: str
    responses: Mapping[str, Response]
    """By key of the task's prompts."""
    variant: str = ""

    def asked(self, prompts: Mapping[str, Prompt]) -> Given:
        """The same answers to the same prompts as a board knows them; by the keys that they have here."""
        moved = {prompts[key]: response for key, response in self.responses.items()}
        return replace(self, responses={p.key: r.model_copy(update={"prompt": p}) for p, r in moved.items()})

    def enter(self, bench: Bench, protocol_key: str, task: Task, kind: str) -> dict[str, Stored]:
        """As of `Contender`."""
        with bench.store.write() as session:
            keys = keep_contestant(session, protocol_key, task, Who(self.name), kind, self.responses)
        return {prompt: Stored(keys[prompt], response) for prompt, response in self.responses.items()}


@dataclass(frozen=True)
class Model:
    """A model that answers as `drawing` says: on disk (its name, a directory, a Hugging Face id), or `remote`."""

    asked_for: str
    drawing: Drawing
    remote: RemoteModel | None = None

    @property
    def name(self) -> str:
        """A directory by its own name, a Hugging Face id by its last part."""
        if self.remote:
            return self.asked_for
        path = Path(self.asked_for).expanduser()
        return path.resolve().name if path.is_dir() else path.name

    @cached_property
    def _directory(self) -> Path:
        directory = find(self.asked_for)
        chat_tokenizer(str(directory))  # a missing template is found here, not later
        return directory

    @property
    def settings(self) -> JsonObject:
        """What it is, as far as that can be known, and how it answers."""
        shown = self.drawing.settings()
        if self.remote is None:
            return {"weights": self._weights, **shown}
        identity = self.remote.answerer.identity()
        unsent = {"temperature": None} if "temperature" in identity else {}
        return {"host": self.remote.host, **shown, **unsent}

    @cached_property
    def _weights(self) -> str:
        return weights_key(self._directory)[:8]

    @property
    def variant(self) -> str:
        """As of `Contender`."""
        shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in self.settings.items()}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())

    @property
    def at_hand(self) -> bool:
        """Whether it would answer without being fetched or converted first."""
        return self.remote is not None or at_hand(self.asked_for)

    def check(self) -> None:
        """Raises `UserError` where it cannot be had; may download it."""
        _ = self.settings

    def enter(self, bench: Bench, protocol_key: str, task: Task, kind: str) -> dict[str, Stored]:
        """As of `Contender`."""
        label, drawing = f"{self.name}: {task.name}", self.drawing
        if self.remote is None:
            model = note_model(bench, self.name, self._directory, None)
            responses, key = draw(bench, model, task.prompts, drawing, label), model.key
        else:
            samplings = [drawing.of(prompt) for prompt in task.prompts]
            responses = collect_remote_responses(bench, self.remote, task.prompts, samplings, label)
            key = self.remote.key
        seed = (drawing.seed or 0) if drawing.drawn else None
        contestant = enter(bench, protocol_key, self.name, kind, seed, self.settings, key)
        answer(bench, contestant, task, responses.places)
        return {stored.response.prompt.key: stored for stored in responses}


def given(session: Session, task: Task) -> dict[str, Given]:
    """By name: whose responses to the task's prompts the store was given; of equal names the one who answered most.

    Prompts are the same by what they ask: files may know no references or categories.
    """
    asked = {p.asks: p for p in task.prompts}
    query = (
        select(schema.Contestant, schema.Protocol.settings, schema.Response, schema.Prompt)
        .join(schema.Protocol, schema.Protocol.key == schema.Contestant.protocol_key)
        .join(schema.Answer, schema.Answer.contestant_key == schema.Contestant.key)
        .join(schema.Task, schema.Task.key == schema.Answer.task_key)
        .join(schema.Response, schema.Response.key == schema.Answer.response_key)
        .join(schema.Prompt, schema.Prompt.key == schema.Answer.prompt_key)
        .where(schema.Task.name == task.name, schema.Contestant.kind.in_(("baseline", "entrant")))
        .order_by(schema.Contestant.key)
    )
    found: dict[tuple[str, str], dict[str, Response]] = {}
    for contestant, settings, response, row in session.execute(query):
        prompt = asked.get(to_prompt(row).asks)
        if prompt is not None and is_open(settings) and not contestant.settings:
            place = found.setdefault((contestant.name, contestant.key), {})
            place[prompt.key] = to_response(response, prompt)
    most: dict[str, Given] = {}
    for (name, _), responses in found.items():
        if name not in most or len(responses) > len(most[name].responses):
            most[name] = Given(name, responses)
    return most
