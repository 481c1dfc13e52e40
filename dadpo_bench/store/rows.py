"""Rows to and from the bench's own types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Executable, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from dadpo_bench.recipe import essence
from dadpo_bench.scoring.texts import looks
from dadpo_bench.store import schema
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt, Reply, Response, Sampling, content_key

T = TypeVar("T")
_CHUNK = 500


def insert_missing(session: Session, table: type[schema.Base], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert the rows whose primary key is not there yet: content keys make equal keys equal rows."""
    dialect = session.get_bind().dialect.name
    insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    for chunk in chunks(list(rows)):
        session.execute(insert(table.__table__).on_conflict_do_nothing(), [dict(row) for row in chunk])


def upsert(session: Session, table: type[schema.Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows; those whose primary key is there are replaced."""
    insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table.__table__)
    columns = table.__table__.columns
    statement = statement.on_conflict_do_update(
        index_elements=[column.name for column in columns if column.primary_key],
        set_={column.name: statement.excluded[column.name] for column in columns if not column.primary_key},
    )
    for chunk in chunks(rows):
        session.execute(statement, [dict(row) for row in chunk])


def tuples(session: Session, statement: Executable, size: int = 20_000) -> Iterator[tuple[Any, ...]]:
    """Rows of plain columns as the database's driver gives them, `size` at a time: a million cost seconds less."""
    cursor: Any = session.connection().execute(statement).cursor
    while rows := cursor.fetchmany(size):
        yield from rows


def chunks(items: Sequence[T], size: int = _CHUNK) -> Iterator[Sequence[T]]:
    """Runs of at most `size`: databases limit the parameters of one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def save_prompts(session: Session, prompts: Iterable[Prompt]) -> None:
    """Keep prompts, whatever task they belong to."""
    fields = {"turns", "system", "reference", "checklist"}
    rows = [{"key": p.key, **p.model_dump(mode="json", include=fields)} for p in prompts]
    insert_missing(session, schema.Prompt, rows)


def save_task(session: Session, task: Task) -> None:
    """Keep a task with its prompts and their labels."""
    save_prompts(session, task.prompts)
    key = task.key
    row = {"key": key, "name": task.name, "domain": task.domain, "split": task.split}
    insert_missing(session, schema.Task, [row])
    insert_missing(session, schema.TaskPrompt, task_prompt_rows(task))


def task_prompt_rows(task: Task) -> list[dict[str, Any]]:
    """The places and labels of a task's prompts."""
    place = {"task_key": task.key}
    return [
        {**place, "position": i, "prompt_key": p.key, "prompt_id": p.id, "category": p.category}
        for i, p in enumerate(task.prompts)
    ]


class KnownResponse(NamedTuple):
    """A response that is there, by its keys."""

    key: str
    batch_key: str
    prompt_key: str


def known_responses(session: Session, batch_keys: Sequence[str]) -> list[KnownResponse]:
    """All responses of those batches that are there."""
    columns = schema.Response.key, schema.Response.batch_key, schema.Response.prompt_key
    return [
        KnownResponse(*row)
        for chunk in chunks(batch_keys)
        for row in session.execute(select(*columns).where(schema.Response.batch_key.in_(chunk)))
    ]


def responses_of(session: Session, keys: Sequence[str]) -> dict[str, schema.Response]:
    """By their keys."""
    found: dict[str, schema.Response] = {}
    for chunk in chunks(keys):
        rows = session.scalars(select(schema.Response).where(schema.Response.key.in_(chunk)))
        found |= {row.key: row for row in rows}
    return found


def response_row(
    key: str, response: Response, model_key: str, batch_key: str, sampling: Sampling | None = None
) -> dict[str, Any]:
    """How a response is stored; without `sampling` where no model drew it."""
    return {
        "key": key,
        "batch_key": batch_key,
        "model_key": model_key,
        "prompt_key": response.prompt.key,
        "sampling": sampling.model_dump(mode="json") if sampling else {},
        "replies": [reply.model_dump(mode="json") for reply in response.replies],
        "cut": response.cut,
        "seconds": response.seconds,
        **looks([reply.text for reply in response.replies])._asdict(),
    }


def to_prompt(row: schema.Prompt, id: str = "", category: str = "") -> Prompt:
    """A stored prompt as the bench speaks of it; ids and categories are kept with tasks."""
    fields = {name: tuple(getattr(row, name)) for name in ("turns", "reference", "checklist")}
    return Prompt(id=id, category=category, system=row.system, **fields)


def to_response(row: schema.Response, prompt: Prompt) -> Response:
    """A stored response as the bench speaks of it."""
    replies = tuple(Reply.model_validate(reply) for reply in row.replies)
    return Response(prompt=prompt, replies=replies, seconds=row.seconds)


def contestant_row(
    protocol_key: str, name: str, kind: str, seed: int | None, settings: Mapping[str, Any], model_key: str
) -> dict[str, Any]:
    """How a contestant is stored, under a key that its settings and seed are part of."""
    return {
        "key": content_key("contestant", protocol_key, name, kind, seed, essence(settings)),
        "protocol_key": protocol_key,
        "name": name,
        "kind": kind,
        "seed": seed,
        "settings": dict(settings),
        "model_key": model_key,
    }


def scored_boards(session: Session) -> list[tuple[schema.Protocol, schema.Judge]]:
    """Every protocol and judge that there are scores of, by their names."""
    keys = session.execute(select(schema.Score.protocol_key, schema.Score.judge_key).distinct()).all()
    found = [(session.get_one(schema.Protocol, p), session.get_one(schema.Judge, j)) for p, j in keys]
    return sorted(found, key=lambda board: (board[0].name, board[1].name, board[0].key, board[1].key))


def judged_boards(session: Session) -> list[tuple[schema.Protocol, schema.Judge]]:
    """`scored_boards`, and behind them those that a judge has begun with and nobody has scored yet."""
    scored = scored_boards(session)
    known = {judge.key for _, judge in scored}
    found = []
    for judge in session.scalars(select(schema.Judge).order_by(schema.Judge.name, schema.Judge.key)):
        if judge.key in known:
            continue
        said: Any = schema.Rating if judge.kind == "pointwise" else schema.Verdict
        about = schema.Rating.response_key if judge.kind == "pointwise" else schema.Verdict.contestant_response
        protocols = (
            select(schema.Contestant.protocol_key)
            .join(schema.Answer, schema.Answer.contestant_key == schema.Contestant.key)
            .join(said, about == schema.Answer.response_key)
            .where(said.judge_key == judge.key)
            .distinct()
        )
        found += [(session.get_one(schema.Protocol, key), judge) for key in sorted(session.scalars(protocols))]
    return scored + found
