"""`check` fails only for a drop that the data can prove."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.scores import save_scores
from dadpo_bench.store import Store, open_store, save_task, schema
from dadpo_bench.tasks import Task
from dadpo_bench.types import Prompt

PROMPTS = 40


def build(path: Path, wins: int, protocol: str = "p") -> Store:
    """A store in which `dadpo` wins so many of 40 prompts against the teacher."""
    store = open_store(str(path))
    task = Task(
        name="t",
        domain="in",
        split="heldout",
        prompts=tuple(Prompt(id=str(i), turns=(f"{i}?",)) for i in range(PROMPTS)),
    )
    with store.write() as session:
        save_task(session, task)
        session.add(
            schema.Protocol(key=protocol, name="r", settings={"teacher": {"model": "m"}, "student": {"model": "s"}})
        )
        identity = {"judge": "j"}
        session.add(schema.Judge(key="j", name="j", kind="pointwise", proxy=True, identity=identity))
        session.flush()
        for kind, name, seed in (("teacher", "teacher", None), ("method", "dadpo", 0)):
            session.add(
                schema.Contestant(
                    key=name, protocol_key=protocol, name=name, kind=kind, seed=seed, settings={}, model_key=name
                )
            )
        session.flush()
        for number, prompt in enumerate(task.prompts):
            for name in ("teacher", "dadpo"):
                key = f"{name}{number}"
                reply = {"text": "x", "token_ids": [], "finish": "stop"}
                session.add(
                    schema.Response(
                        key=key, batch_key=key, model_key=name, prompt_key=prompt.key, sampling={}, replies=[reply]
                    )
                )
                session.flush()
                answer = {"contestant_key": name, "task_key": task.key, "prompt_key": prompt.key}
                session.add(schema.Answer(**answer, response_key=key))
                value = 1.0 if name == "teacher" else 2.0 * (number < wins)
                session.add(schema.Rating(judge_key="j", response_key=key, value=value, reason=""))
        session.add(
            schema.Run(
                protocol_key=protocol,
                started=datetime(2026, 1, 1, tzinfo=UTC),
                finished=None,
                arguments={},
                recipe={},
                environment={"precision": "x", "device": "cpu", "versions": {"torch": "1", "transformers": "1"}},
            )
        )
    save_scores(store, protocol, "j")
    return store


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [(20, 20, 0), (20, 18, 0), (30, 8, 1), (8, 30, 0)],
    ids=["equal", "a drop within noise", "a proven drop", "a gain"],
)
def test_only_a_proven_drop_fails(before: int, after: int, code: int, tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", before), build(tmp_path / "new.sqlite3", after)
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == code
    assert ("proven drop: dadpo on t, judge j" in result.stdout) == (code == 1)


def test_stores_without_a_shared_row_are_not_compared(tmp_path: Path) -> None:
    old, new = build(tmp_path / "old.sqlite3", 20), build(tmp_path / "new.sqlite3", 20, protocol="other")
    result = CliRunner().invoke(app, ["check", "--store", new.name, "--against", old.name])
    assert result.exit_code == 2
    assert "share no row" in result.stderr
