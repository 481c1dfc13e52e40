"""What a run asks of its teacher, wherever that is: on this machine, or behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.models import chat_tokenizer, find, frozen, tokenizer_key
from dadpo_bench.recipe import Recipe
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.stages.drawing import Drawing, draw_all
from dadpo_bench.stages.parity import check_parity
from dadpo_bench.stages.responses import Responses
from dadpo_bench.stages.served import ServedModel, collect_served_responses
from dadpo_bench.stages.served_signals import collect_served_signals, served_scores
from dadpo_bench.stages.signals import Scored, Scores, Scoring, check_teacher, collect_all_signals, local_scores
from dadpo_bench.stages.students import note_model
from dadpo_bench.teacher import Teacher
from dadpo_bench.types import Continuation, Example, JudgeContext, Pair, Prompt, Sampling

AnyTeacher = LocalModel | ServedModel


def teacher_of(bench: Bench, recipe: Recipe) -> AnyTeacher:
    """The recipe's teacher: found and noted, or ready to be asked where it is served.

    Raises `UserError` where it or its tokenizer cannot be had, or where the key of its endpoint is missing.
    """
    teacher = recipe.teacher
    if teacher.endpoint is None:
        directory = find(teacher.model)
        chat_tokenizer(str(directory), teacher.chat_template)  # a missing template is found here, not later
        return note_model(bench, Path(teacher.model).name, directory, teacher.chat_template)
    served = ServedModel(teacher)
    if served.directory is not None:
        chat_tokenizer(str(served.directory), served.chat_template)
    known = "by its name and tokenizer" if teacher.vouched else f"by its name at {teacher.host}"
    bench.reporter.say(f"  {served.name}: known {known}; which weights answer is not verified")
    return served


def same_tokenizer(teacher: AnyTeacher, student: LocalModel) -> bool:
    """Whether ids that were sampled train as they are.

    A teacher that tells none leaves only the student's own, which are the student's.
    """
    return teacher.directory is None or tokenizer_key(teacher.directory) == tokenizer_key(student.directory)


def teacher_responses(
    bench: Bench, teacher: AnyTeacher, wanted: Mapping[str, Sequence[Prompt]], drawing: Drawing
) -> list[Responses]:
    """Its responses to prompts by what these are called; only what is not stored is asked for."""
    if isinstance(teacher, ServedModel):
        return [
            collect_served_responses(bench, teacher, prompts, drawing, f"teacher's responses{name}")
            for name, prompts in wanted.items()
        ]
    return draw_all(bench, [(teacher, prompts, drawing) for prompts in wanted.values()], "teacher's responses")


def check_own_responses(bench: Bench, teacher: AnyTeacher, lessons: Sequence[Example], *, sampled: bool) -> None:
    """See `check_teacher`; of a teacher that gives no log-probs nothing can be checked, which is told."""
    scores: Scores
    if isinstance(teacher, LocalModel):
        directory, scores = teacher.directory, local_scores(bench, teacher, frozen())
    elif teacher.directory is None or "teacher" not in teacher.teacher.gives:
        bench.reporter.say(f"  {teacher.name} gives no log-probs: that it wrote its responses is not checked")
        return
    else:
        directory, scores = teacher.directory, served_scores(teacher)
    tokenizer = chat_tokenizer(str(directory), teacher.chat_template)
    check_teacher(teacher.name, tokenizer, scores, lessons, sampled=sampled)


def teacher_signals(
    bench: Bench,
    teacher: AnyTeacher,
    wanted: Mapping[str, Sequence[Scored]],
    *,
    sampled: bool,
    found: Callable[[Sequence[dict[str, Any]]], None],
) -> list[list[Pair]]:
    """See `collect_all_signals`, of pairs by what they are called.

    What the parity gate found of a served teacher is told, and given to `found`.
    """
    if isinstance(teacher, LocalModel):
        scorings = [Scoring(teacher, pairs, frozen()) for pairs in wanted.values()]
        return collect_all_signals(bench, scorings, sampled=sampled, label="teacher signals")
    if teacher.directory is None:
        raise UserError(f"{teacher.name}: log-probs of token ids need its tokenizer (teacher.tokenizer)")
    served, tokenizer = teacher, chat_tokenizer(str(teacher.directory), teacher.chat_template)

    def signals(name: str, pairs: Sequence[Scored]) -> list[Pair]:
        label = f"teacher signals, {name}"

        def gate(continuations: Sequence[Continuation]) -> None:
            figures = []
            for line, figure in check_parity(served, tokenizer, continuations, [pair.prompt for pair in pairs]):
                bench.reporter.say(f"  {label}: {line}")
                figures.append(figure)
            found(figures)

        return collect_served_signals(bench, served, tokenizer, pairs, sampled=sampled, label=label, before=gate)

    return [signals(name, pairs) for name, pairs in wanted.items()]


def check_key(teacher: Teacher) -> None:
    """Raises `UserError` where the teacher is behind an endpoint whose key is missing."""
    if teacher.endpoint is not None:
        ServedModel(teacher).answering(Sampling(), 0)


def judge_context(teacher: Teacher) -> JudgeContext:
    """What judges may use of a recipe's teacher; a plan knows that one that is served is not what they compute with."""
    return JudgeContext(lambda: find(teacher.model), teacher.chat_template)
