"""Small stores made by hand: what each contestant was given by the judge, prompt by prompt, in a line."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy.orm import Session

from dadpo_bench.panels import Panel, panels
from dadpo_bench.store import save_task, schema
from dadpo_bench.store.rows import contestant_row, insert_missing, response_row
from dadpo_bench.tasks import Task
from dadpo_bench.types import Outcome, Prompt, Reply, Response
from tests.empty_store import empty_store

PROMPTS = 24
_OUTCOMES = {"W": Outcome.win, "T": Outcome.tie, "L": Outcome.loss, "?": Outcome.unscored}
_TEXT = "the cat sat on a mat and then the cat sat on a hat while rain fell on the old town"


class Stands(NamedTuple):
    """A contestant and what was said of it, by prompt; patterns are repeated over all prompts."""

    name: str
    kind: str = "method"
    seed: int | None = None
    orders: str = ""
    """Of a pairwise judge, a word a prompt: `WL` won as `ab`, lost as `ba`; T tie, ? unscored, . not asked."""
    grades: Sequence[float | None] = ()
    """Of a graded one: the preference for the contestant, `ab` then `ba`, prompt after prompt; None unscored."""
    ratings: Sequence[float | tuple[float, ...] | None] = ()
    """Of a pointwise judge: a rating, one a turn, or None where it could not say."""
    kl: tuple[float, float] | None = None
    wordy: int = 0
    """Shifts the length of its responses."""


def panel_of(kind: Literal["pairwise", "pointwise"], stands: Sequence[Stands], *, proxy: bool = False) -> Panel:
    """The panel of a store in which these stand on 24 prompts, 20 of `writing` and 4 of `maths`.

    Whoever is called `teacher` or `baseline` is the baseline; canaries meet `sft` of their seed.
    """
    with tempfile.TemporaryDirectory() as folder, closing(empty_store(Path(folder) / "x.sqlite3")) as store:
        with store.write() as session:
            _fill(session, kind, stands, proxy)
        with store.read() as session:
            (panel,) = panels(session, "protocol", "judge")
            session.expunge_all()
        return panel


@cache
def _prompts() -> tuple[Prompt, ...]:
    return tuple(
        Prompt(id=str(i), turns=(f"Question {i}?",), category="maths" if i % 6 == 5 else "writing")
        for i in range(PROMPTS)
    )


def _fill(session: Session, kind: str, stands: Sequence[Stands], proxy: bool) -> None:
    task = Task(name="golden", domain="out", split="heldout", prompts=_prompts())
    save_task(session, task)
    session.add(schema.Protocol(key="protocol", name="golden", settings={}))
    session.add(schema.Judge(key="judge", name="judge", kind=kind, proxy=proxy, identity={}))
    session.flush()
    keys: dict[tuple[str, int | None], list[str]] = {}
    for place, one in enumerate(stands):
        row = contestant_row("protocol", one.name, one.kind, one.seed, {}, f"{one.name}{one.seed}")
        insert_missing(session, schema.Contestant, [row])
        given = [_response(prompt, i, place, one.wordy) for i, prompt in enumerate(_prompts())]
        own = keys[one.name, one.seed] = [f"{one.name}{one.seed}/{i}" for i in range(PROMPTS)]
        rows = [response_row(key, response, key, key) for key, response in zip(own, given, strict=True)]
        insert_missing(session, schema.Response, rows)
        at = {"contestant_key": row["key"], "task_key": task.key}
        answers = [{**at, "prompt_key": p.key, "response_key": key} for p, key in zip(_prompts(), own, strict=True)]
        insert_missing(session, schema.Answer, answers)
        if one.kl:
            session.add(schema.ContestantDivergence(**at, from_teacher=one.kl[0], to_teacher=one.kl[1]))
    session.flush()
    for one in stands:
        own = keys[one.name, one.seed]
        met = ("sft", one.seed) if one.kind == "canary" else ("teacher", None)
        for i in range(PROMPTS):
            if kind == "pointwise":
                session.add(_rating(own[i], _repeated(one.ratings, i)))
            else:
                insert_missing(session, schema.Verdict, _verdicts(one, i, own[i], keys[met][i]))


def _response(prompt: Prompt, i: int, place: int, wordy: int) -> Response:
    words = " ".join(islice(cycle(_TEXT.split()), 5 + (7 * i + 11 * place) % 23 + wordy))
    return Response(prompt=prompt, replies=(Reply(text=words, finish="length" if (i + place) % 7 == 0 else "stop"),))


def _repeated(pattern: Sequence[Any], i: int) -> Any:
    return pattern[i % len(pattern)] if pattern else None


def _rating(response: str, given: float | tuple[float, ...] | None) -> schema.Rating:
    turns = given if isinstance(given, tuple) else ()
    value = sum(turns) / len(turns) if turns else given
    return schema.Rating(judge_key="judge", response_key=response, value=value, by_turn=list(turns))


def _verdicts(one: Stands, i: int, ours: str, theirs: str) -> list[dict[str, Any]]:
    place = {"judge_key": "judge", "contestant_response": ours, "baseline_response": theirs}
    said: list[tuple[str, Outcome, float | None]] = []
    if one.orders:
        marks = zip(("ab", "ba"), _repeated(one.orders.split(), i), strict=True)
        said = [(order, _OUTCOMES[mark], None) for order, mark in marks if mark != "."]
    elif one.grades:
        said = [(order, *_graded(_repeated(one.grades, 2 * i + k))) for k, order in enumerate(("ab", "ba"))]
    when = {"asked": datetime(2026, 1, 1, tzinfo=UTC)}
    return [
        {**place, "order": order, "outcome": str(outcome), "preference": preference, **when}
        for order, outcome, preference in said
    ]


def _graded(grade: float | None) -> tuple[Outcome, float | None]:
    if grade is None:
        return Outcome.unscored, None
    return (Outcome.tie if grade == 0.5 else Outcome.win if grade > 0.5 else Outcome.loss), grade
