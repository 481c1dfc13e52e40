"""How a task is answered: at one temperature, or by category where its authors have it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dadpo_bench import registry
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.responses import Request, Responses, collect_all_responses
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

    def together(self, prompts: Sequence[Prompt]) -> list[tuple[Sampling, list[Prompt]]]:
        """Prompts that are answered in one way: only these share batches."""
        groups: dict[float, list[Prompt]] = {}
        for prompt in prompts:
            groups.setdefault(self.of(prompt).temperature, []).append(prompt)
        return [(self.of(group[0]), group) for group in groups.values()]

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


def draw(bench: Bench, model: LocalModel, prompts: Sequence[Prompt], drawing: Drawing, label: str) -> Responses:
    """A local model's responses, those of a temperature together; only batches not in the store are sampled."""
    return draw_all(bench, [(model, prompts, drawing)], label)[0]


def draw_all(
    bench: Bench, wanted: Sequence[tuple[LocalModel, Sequence[Prompt], Drawing]], label: str
) -> list[Responses]:
    """`draw` of each, all that is owed in one go."""
    requests = [
        [Request(model, group, sampling, drawing.seed or 0) for sampling, group in drawing.together(prompts)]
        for model, prompts, drawing in wanted
    ]
    found = iter(collect_all_responses(bench, [request for some in requests for request in some], label))
    return [Responses(bench.store, [place for _ in some for place in next(found).places]) for some in requests]
