"""How a task is answered: at one temperature, or by category where its authors have it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dadpo_bench import registry
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import Stored, collect_responses
from dadpo_bench.types import Prompt, Sampling

BY_CATEGORY = "by category"


@dataclass(frozen=True)
class Drawing:
    """How models answer a task."""

    sampling: Sampling
    """The temperature is that of categories without one of their own."""
    temperatures: Mapping[str, float]
    """By category."""
    seed: int | None

    def of(self, prompt: Prompt) -> Sampling:
        """How this prompt is answered."""
        given = self.temperatures.get(prompt.category, self.sampling.temperature)
        return self.sampling.model_copy(update={"temperature": given})

    @property
    def drawn(self) -> bool:
        """Whether another seed would give other replies."""
        return any(t > 0 for t in (self.sampling.temperature, *self.temperatures.values()))

    def settings(self) -> dict[str, Any]:
        """What tells one contestant of a name from another."""
        sampling = self.sampling
        temperature = BY_CATEGORY if self.temperatures else sampling.temperature
        shown: dict[str, Any] = {"temperature": temperature, "max_new_tokens": sampling.max_new_tokens}
        return shown | ({"top_p": sampling.top_p} if self.drawn and sampling.top_p < 1 else {})


def temperatures_of(task: str) -> Mapping[str, float]:
    """By category: at which temperature a registered task's authors have it answered; empty of all others."""
    return registry.tasks[task].temperatures if task in registry.tasks.names() else {}


def draw(bench: Bench, model: LocalModel, prompts: Sequence[Prompt], drawing: Drawing, label: str) -> list[Stored]:
    """A local model's responses, those of a temperature together; only batches not in the store are sampled."""
    groups: dict[float, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(drawing.of(prompt).temperature, []).append(prompt)
    found: list[Stored] = []
    for temperature, group in groups.items():
        named = label if len(groups) == 1 else f"{label}, temperature {temperature:g}"
        sampling = drawing.sampling.model_copy(update={"temperature": temperature})
        found += collect_responses(bench, model, group, sampling, drawing.seed or 0, named)
    return found
