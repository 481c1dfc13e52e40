"""The tables. Every key is a content hash of all that changes a result and nothing that does not."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dadpo_bench.store.columns import Moment, words
from dadpo_bench.types import Outcome

Key = String(32)

LABEL = 300
"""Characters of an activity's label."""


class Base(DeclarativeBase):
    """Declarative base; JSON columns hold what is shown, never what is searched."""

    type_annotation_map: ClassVar = {dict[str, Any]: JSON, list[Any]: JSON, datetime: Moment()}


class Protocol(Base):
    """What contestants share and so may be compared under: teacher, student, prompts, sampling, dSFT, tasks."""

    __tablename__ = "protocols"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(words(200))
    settings: Mapped[dict[str, Any]]


class Run(Base):
    """One call of `dadpo-bench run`."""

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    protocol_key: Mapped[str] = mapped_column(ForeignKey("protocols.key"))
    started: Mapped[datetime]
    finished: Mapped[datetime | None]
    arguments: Mapped[dict[str, Any]]
    recipe: Mapped[dict[str, Any]]
    environment: Mapped[dict[str, Any]]
    """Versions, device, number format, code revision."""


class StageTime(Base):
    """How long a stage of a run took and its process's peak memory so far: a GPU's where it computed on one."""

    __tablename__ = "stage_times"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(String(80))
    seconds: Mapped[float]
    peak_bytes: Mapped[int]


class Activity(Base):
    """What a run is at: its stage first, then every bar that is shown. Kept anew every two seconds.

    Gone when it finishes; of one that did not, what it told last.
    """

    __tablename__ = "activities"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(words(LABEL))
    unit: Mapped[str] = mapped_column(String(40))
    behind: Mapped[int]
    """Done before, by a process that this one goes on from."""
    done: Mapped[int]
    """Those among them."""
    total: Mapped[int]
    """0 where it is not known yet."""
    began: Mapped[datetime]
    updated: Mapped[datetime]
    ended: Mapped[bool]
    """Whether the run stopped with this note."""
    derivation_key: Mapped[str | None] = mapped_column(Key)
    """Of a training, whose metrics are kept under it."""


class Model(Base):
    """A set of weights, by content."""

    __tablename__ = "models"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(words(200))
    parameters: Mapped[int]
    config: Mapped[dict[str, Any]]


class Derivation(Base):
    """How a model was made of another (pruned, trained), under a key of all that decides its weights."""

    __tablename__ = "derivations"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    model_key: Mapped[str] = mapped_column(ForeignKey("models.key"))
    settings: Mapped[dict[str, Any]]
    seconds: Mapped[float]
    record: Mapped[dict[str, Any]]
    """What was found on the way: importance data, pre-flight figures, steps, tokens."""


class Metric(Base):
    """What one optimiser step of a training reported."""

    __tablename__ = "metrics"
    derivation_key: Mapped[str] = mapped_column(Key, primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    values: Mapped[dict[str, Any]]


class Prompt(Base):
    """A conversation's user turns."""

    __tablename__ = "prompts"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    turns: Mapped[list[Any]]
    system: Mapped[str] = mapped_column(words())
    reference: Mapped[list[Any]]
    """A right answer to each turn; empty where there is none."""
    checklist: Mapped[list[Any]]


class Task(Base):
    """A set of prompts of one kind, by content."""

    __tablename__ = "tasks"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(words(200))
    domain: Mapped[str] = mapped_column(String(8))
    split: Mapped[str] = mapped_column(String(40))


class TaskPrompt(Base):
    """The place and labels of a prompt in a task."""

    __tablename__ = "task_prompts"
    task_key: Mapped[str] = mapped_column(ForeignKey("tasks.key"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    prompt_key: Mapped[str] = mapped_column(ForeignKey("prompts.key"))
    prompt_id: Mapped[str] = mapped_column(words(200))
    category: Mapped[str] = mapped_column(words(80))


class Response(Base):
    """A model's replies to a prompt. The key holds model, batch, sampling and seed."""

    __tablename__ = "responses"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    batch_key: Mapped[str] = mapped_column(Key, index=True)
    model_key: Mapped[str] = mapped_column(Key)
    """A model's key, or who else wrote it: `canary:NAME`, or the hash of an imported contestant's name."""
    prompt_key: Mapped[str] = mapped_column(ForeignKey("prompts.key"))
    sampling: Mapped[dict[str, Any]]
    replies: Mapped[list[Any]]
    characters: Mapped[int]
    grams: Mapped[int]
    """Word 4-grams; see `scoring.texts`."""
    repeated: Mapped[int]
    """Of these, the ones that it had said before."""
    cut: Mapped[bool]
    """Whether a reply was cut by the token limit."""
    seconds: Mapped[float | None]
    """See `types.Response`."""


class Signal(Base):
    """log π(y|x) of one reply under one frozen model: sum over tokens, nats."""

    __tablename__ = "signals"
    model_key: Mapped[str] = mapped_column(Key, primary_key=True)
    tokens_key: Mapped[str] = mapped_column(Key, primary_key=True)
    """Hash of the prompt's and the response's token ids."""
    precision: Mapped[str] = mapped_column(String(40), primary_key=True)
    scorer_version: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[float]
    tokens: Mapped[int]


class Divergence(Base):
    """KL between two models on one set of samples: total nats and total tokens."""

    __tablename__ = "divergences"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    nats: Mapped[float]
    tokens: Mapped[int]


class Contestant(Base):
    """Somebody on a board: a method's checkpoint of one seed, a model as it is, or a canary."""

    __tablename__ = "contestants"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    protocol_key: Mapped[str] = mapped_column(ForeignKey("protocols.key"), index=True)
    name: Mapped[str] = mapped_column(words(200))
    kind: Mapped[str] = mapped_column(String(20))
    """`teacher`, `student`, `method` or `canary`; `baseline` or `entrant` where nobody was trained."""
    seed: Mapped[int | None]
    """None where training seeds do not apply."""
    settings: Mapped[dict[str, Any]]
    model_key: Mapped[str] = mapped_column(Key)


class Answer(Base):
    """Which response a contestant gave to a prompt of a task."""

    __tablename__ = "answers"
    contestant_key: Mapped[str] = mapped_column(ForeignKey("contestants.key"), primary_key=True)
    task_key: Mapped[str] = mapped_column(ForeignKey("tasks.key"), primary_key=True)
    prompt_key: Mapped[str] = mapped_column(ForeignKey("prompts.key"), primary_key=True)
    response_key: Mapped[str] = mapped_column(ForeignKey("responses.key"))


class ContestantDivergence(Base):
    """The KL columns of a contestant on a task, nats a token."""

    __tablename__ = "contestant_divergences"
    contestant_key: Mapped[str] = mapped_column(ForeignKey("contestants.key"), primary_key=True)
    task_key: Mapped[str] = mapped_column(ForeignKey("tasks.key"), primary_key=True)
    from_teacher: Mapped[float]
    to_teacher: Mapped[float]


class Judge(Base):
    """A judge by all that decides its verdicts."""

    __tablename__ = "judges"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(words(200))
    kind: Mapped[str] = mapped_column(String(20))
    proxy: Mapped[bool]
    identity: Mapped[dict[str, Any]]


class _Asked:
    """What is kept of every question to a judge: the columns of `types.Asked`."""

    reason: Mapped[str] = mapped_column(words(200), default="")
    raw: Mapped[str] = mapped_column(words(), default="")
    resolved_model: Mapped[str] = mapped_column(words(200), default="")
    fingerprint: Mapped[str] = mapped_column(words(200), default="")
    tokens: Mapped[int] = mapped_column(default=0)
    answer_tokens: Mapped[int] = mapped_column(default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)


class Rating(_Asked, Base):
    """A pointwise judge's score of one response; a failure until the next run asks again."""

    __tablename__ = "ratings"
    judge_key: Mapped[str] = mapped_column(ForeignKey("judges.key"), primary_key=True)
    response_key: Mapped[str] = mapped_column(ForeignKey("responses.key"), primary_key=True)
    value: Mapped[float | None]
    by_turn: Mapped[list[Any]] = mapped_column(default=list)
    asked: Mapped[datetime | None]


class Verdict(_Asked, Base):
    """What a pairwise judge said of two responses in one order."""

    __tablename__ = "verdicts"
    judge_key: Mapped[str] = mapped_column(ForeignKey("judges.key"), primary_key=True)
    contestant_response: Mapped[str] = mapped_column(ForeignKey("responses.key"), primary_key=True)
    baseline_response: Mapped[str] = mapped_column(ForeignKey("responses.key"), primary_key=True)
    order: Mapped[str] = mapped_column(String(2), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(10))
    preference: Mapped[float | None]
    """Graded: 1 the contestant's response, 0 the baseline's."""
    asked: Mapped[datetime]

    @property
    def worth(self) -> float | None:
        """See `Outcome.worth`."""
        return Outcome(self.outcome).worth(self.preference)


class JudgeEvaluation(Base):
    """How a judge did on a set of labelled pairs, as `judge-eval` found it; a board made with that judge cites it."""

    __tablename__ = "judge_evaluations"
    judge_key: Mapped[str] = mapped_column(ForeignKey("judges.key"), primary_key=True)
    set_key: Mapped[str] = mapped_column(Key, primary_key=True)
    """Of the pairs and their labels, by content."""
    name: Mapped[str] = mapped_column(words(200))
    made: Mapped[datetime]
    values: Mapped[dict[str, Any]]


class Score(Base):
    """A row of a board, as it was computed; `tests/regression` computes it again from verdicts and ratings."""

    __tablename__ = "scores"
    protocol_key: Mapped[str] = mapped_column(ForeignKey("protocols.key"), primary_key=True)
    judge_key: Mapped[str] = mapped_column(ForeignKey("judges.key"), primary_key=True)
    task_key: Mapped[str] = mapped_column(ForeignKey("tasks.key"), primary_key=True)
    baseline: Mapped[str] = mapped_column(words(200), primary_key=True)
    contestant: Mapped[str] = mapped_column(words(200), primary_key=True)
    values: Mapped[dict[str, Any]]


Index("answers_by_response", Answer.response_key)
