"""What a run computes, counted before it: for every stage which model does what to how many tokens.

Prompts are counted by their characters and replies by their limit, so no tokenizer is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from dadpo_bench import registry
from dadpo_bench.pipeline import Plan
from dadpo_bench.stages import Stage
from dadpo_bench.types import Prompt, Sampling

CHARACTERS = 4.5
"""Characters of an English token, and the template's tokens of a turn: enough for an estimate."""
TEMPLATE = 30
FILLED = 0.85
"""Share of the new-token limit that a reply uses on average."""

_CANARIES = 8


class Load(NamedTuple):
    """One kind of work that one model does in one stage, over all seeds and epochs."""

    stage: Stage
    who: str
    """Contestant, or the model itself."""
    model: Literal["teacher", "student", "parent"]
    """`parent`: what the student is pruned from."""
    work: Literal["prune", "sample", "score", "train", "ask"]
    items: int
    unit: str
    examples: int
    """Sequences that are computed: prompts with their replies."""
    prompt: float
    """Tokens, as a mean."""
    replies: int
    """Continuations of each prompt."""
    reply: float
    """Tokens, as a mean."""
    limit: int = 0
    """Tokens of the longest reply."""
    longest: float = 0
    """Tokens of the longest prompt."""
    batch_size: int = 1
    micro_batch_tokens: int = 0
    max_tokens: int = 0
    recompute: bool = False
    """Whether layers keep their inputs alone for the backward pass."""
    rank: int = 0
    """Of adapters that are trained in the weights' place; 0 for none."""
    cacheable: bool = False
    """Whether its teacher's logits can come from the disk."""
    beside: Literal["", "teacher"] = ""
    """A frozen model in memory beside, which reads the same tokens."""
    masters: bool = False
    """Whether the weights are the fp32 masters, though nothing is trained."""

    @property
    def tokens(self) -> int:
        """Tokens that are learnt from or scored; of sampling, the new ones."""
        return int(self.examples * (self.reply + self.prompt * (self.work != "sample") + self._further))

    @property
    def targets(self) -> int:
        """Response tokens: those the head reads."""
        return int(self.examples * self.replies * self.reply)

    @property
    def visible_keys(self) -> int:
        """Keys that all queries see: each its prompt, its reply up to itself, and no other reply."""
        whole = self.prompt + self.reply
        return int(self.examples * (whole**2 + self._further * (whole + self.prompt)) / 2)

    @property
    def _further(self) -> float:
        return max(0, self.replies - 1) * self.reply


def loads(plan: Plan) -> Iterator[Load]:
    """All of a run's work as if nothing were done, in the order of its stages."""
    recipe, seeds = plan.recipe, len(plan.seeds)
    train = [p for task in plan.learning.values() for p in task.prompts]
    asked, longest = _tokens(train) / len(train), max(_tokens([p]) for p in train)
    entries = {c: registry.methods[recipe.methods[c].method] for c in plan.trained}
    pairs = [entry for entry in entries.values() if entry.data == "pairs"]
    signals = sorted({"reference", "teacher"}.intersection(s for entry in pairs for s in entry.signals))
    measured = len(train) - len(plan.train_task.prompts)
    taught, own = recipe.teacher_sampling, recipe.student_sampling

    def sample(stage: Stage, model: Any, count: int, prompt: float, sampling: Sampling, who: str = "") -> Load:
        return Load(
            stage,
            who or model,
            model,
            "sample",
            count,
            "responses",
            count,
            prompt,
            1,
            FILLED * sampling.max_new_tokens,
            sampling.max_new_tokens,
            longest,
            sampling.batch_size,
        )

    def pair(stage: Stage, who: str, model: Any, work: Any, unit: str, examples: int) -> Load:
        reply, limit = (taught.max_new_tokens + own.max_new_tokens) / 2, max(taught.max_new_tokens, own.max_new_tokens)
        return Load(stage, who, model, work, seeds, unit, examples, asked, 2, FILLED * reply, limit, longest)

    def trained(stage: Stage, name: str) -> Load:
        settings, entry = recipe.method_settings(name), entries[name]
        # Validation is a forward pass, a third of a step, each time it is measured.
        times = 1 + int(settings.get("validations", 0))
        examples = int(settings.get("epochs", 1)) * (len(train) - measured) + times * measured // 3
        load = pair(stage, name, "student", "train", "trainings", examples * seeds)
        if entry.data != "pairs":
            load = load._replace(replies=1, reply=FILLED * taught.max_new_tokens, limit=taught.max_new_tokens)
        return load._replace(
            beside="teacher" if "teacher_logits" in entry.signals and not settings.get("cached_top_k") else "",
            cacheable="cached_top_k" in settings,
            recompute=bool(settings.get("gradient_checkpointing")),
            rank=(settings.get("lora") or {}).get("rank", 0),
            **{key: settings[key] for key in ("batch_size", "micro_batch_tokens", "max_tokens") if key in settings},
        )

    prune = recipe.student.prune
    if prune is not None:
        few = min(prune.examples, len(train)) if prune.importance == "taylor" else 0
        yield Load(Stage.models, "student", "parent", "prune", 1, "models", few, asked, 0, 0, longest=longest)
    yield sample(Stage.teacher_responses, "teacher", len(train), asked, taught)
    yield trained(Stage.dsft, plan.trained[0])
    if pairs:
        yield sample(Stage.student_responses, "student", len(train) * seeds, asked, own, plan.trained[0])
    for name in signals:
        reference = name == "reference"
        load = pair(Stage.signals, name, "student" if reference else "teacher", "score", "pairs", len(train) * seeds)
        yield load._replace(items=len(train) * seeds, masters=reference)
    for name in plan.trained[1:]:
        yield trained(Stage.train, name)

    evaluation, students = recipe.evaluation, 1 + len(plan.trained) * seeds
    reply = FILLED * evaluation.sampling.max_new_tokens
    prompts = [p for task in plan.tasks for p in task.prompts]
    turns = [turn for p in prompts for turn in _conversation(p, reply)]
    # At temperature 1 the first turn is answered once more for the KL columns, and read by both models.
    once_more = sum(min(evaluation.kl_prompts, len(task.prompts)) for task in plan.tasks)
    held_out = sum(turns) / len(turns)
    for role, count in (("teacher", 1), ("student", students)):
        load = sample(Stage.responses, role, (len(turns) + once_more) * count, held_out, evaluation.sampling)
        yield load._replace(items=len(prompts) * count, longest=max(turns))
    if once_more:
        yield Load(
            Stage.responses,
            "KL",
            "student",
            "score",
            0,
            "responses",
            2 * students * once_more,
            held_out,
            1,
            reply,
            beside="teacher",
        )
    judge = registry.judges[recipe.judge.partition(":")[0]]
    # A pointwise judge with settings scores with a model of its own, the teacher unless told otherwise: each reply
    # behind its prompt, and (`pmi`) behind a neutral one.
    scores = judge.kind == "pointwise" and bool(judge.config)
    judged = len(prompts) * (1 + students) + _CANARIES * evaluation.canary_prompts
    replies = 2 * (len(turns) * (1 + students) + _CANARIES * evaluation.canary_prompts)
    yield Load(
        Stage.judge,
        judge.name,
        "teacher",
        "score" if scores else "ask",
        judged,
        "judgments",
        replies,
        (held_out + TEMPLATE) / 2,
        1,
        reply,
    )


def _tokens(prompts: Sequence[Prompt]) -> int:
    return sum(int(sum(map(len, p.turns)) / CHARACTERS) + TEMPLATE for p in prompts)


def _conversation(prompt: Prompt, reply: float) -> Iterator[float]:
    """Tokens that stand before each of a conversation's replies."""
    before = 0.0
    for turn in prompt.turns:
        before += len(turn) / CHARACTERS + TEMPLATE
        yield before
        before += reply
