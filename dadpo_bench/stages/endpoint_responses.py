"""Responses of models behind endpoints. A conversation is the unit of work, kept as it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dadpo_bench import registry
from dadpo_bench.interrupts import finishing
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Responses, Stored
from dadpo_bench.store import insert_missing, known_responses, schema
from dadpo_bench.store.rows import response_row, save_prompts
from dadpo_bench.types import Answerer, JsonObject, Prompt, Response, Sampling, content_key

BACKEND = "endpoint"
"""Whose models answer, and score tokens, elsewhere."""


@dataclass(frozen=True)
class RemoteModel:
    """A model elsewhere. Its key is made of host and name: which weights answer there, nobody can verify."""

    name: str
    answerer: Answerer
    vouched: str = ""
    """Key of the model that somebody says is asked, wherever that is; empty where nobody does."""

    @property
    def host(self) -> str:
        """Where it is asked; `local` for this machine."""
        return str(self.answerer.identity()["host"])

    @property
    def key(self) -> str:
        """As good as can be had."""
        return self.vouched or content_key("endpoint", self.host, self.name)

    @property
    def identity(self) -> JsonObject:
        """What decides an answer, beside the prompt and the temperature."""
        known = dict(self.answerer.identity())
        if self.vouched:
            known.pop("host", None)
        return known


def remote_model(settings: JsonObject, *, key: bool = True) -> RemoteModel:
    """The model that `settings` name, ready to be asked. Raises `UserError` for wrong ones, and for a missing key."""
    answering: Any = registry.resolve(registry.backends[BACKEND].answering)
    return RemoteModel(settings["model"], answering(settings, key=key))


def collect_remote_responses(
    bench: Bench, model: RemoteModel, prompts: Sequence[Prompt], samplings: Sequence[Sampling], label: str
) -> Responses:
    """The model's responses to those prompts that it answered, in their order; only what is not stored is asked.

    What failed is told, kept nowhere, and owed again on the next run. The first Ctrl-C lets what is in flight arrive.
    """
    identity = model.identity
    batches = [
        content_key("endpoint response", model.key, identity, sampling.temperature, prompt.key)
        for prompt, sampling in zip(prompts, samplings, strict=True)
    ]
    with bench.store.read() as session:
        found = {row.prompt_key: row.key for row in known_responses(session, batches)}
    owed = [i for i, prompt in enumerate(prompts) if prompt.key not in found]
    asked = [prompts[i] for i in owed]
    failed: list[str] = []

    def finish() -> None:
        bench.reporter.say("  finishing what is in flight; Ctrl-C again stops at once")
        model.answerer.finish()

    with bench.reporter.bar(label, len(owed), "responses") as bar:
        if owed:
            bench.reporter.say(f"  {label}: {model.answerer.estimate(asked)}")
            answers = model.answerer.answers(asked, [samplings[i].temperature for i in owed])
            with finishing(finish), closing(answers):
                try:
                    for place, answer in answers:
                        if isinstance(answer, Response):
                            batch = batches[owed[place]]
                            stored = Stored(content_key(batch, answer.prompt.key), answer)
                            sent = None if "temperature" in identity else samplings[owed[place]]
                            _keep(bench, stored, model.key, batch, sent)
                            found[answer.prompt.key] = stored.key
                        else:
                            failed.append(answer)
                        bar.advance(note=f"{len(failed)} failed" if failed else "")
                finally:
                    bench.reporter.say(f"  {label}: {model.answerer.bill()}")
    if failed:
        most = sorted(set(failed), key=failed.count, reverse=True)[:3]
        bench.reporter.say(
            f"  {label}: {len(failed)} without an answer ({'; '.join(most)}); run again to ask once more"
        )
    return Responses(bench.store, [(p, found[p.key]) for p in prompts if p.key in found])


def _keep(bench: Bench, stored: Stored, model_key: str, batch: str, sampling: Sampling | None) -> None:
    with bench.store.write() as session:
        save_prompts(session, [stored.response.prompt])
        insert_missing(session, schema.Response, [response_row(*stored, model_key, batch, sampling)])
