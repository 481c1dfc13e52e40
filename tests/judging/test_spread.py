"""Judges whose model each worker loads: the same judgments as in one process, and every end told as there."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from rich.console import Console

from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.judging.comparisons import Match, OpenJudge, ask, construct_judge, note_judge
from dadpo_bench.models import precision
from dadpo_bench.progress import Reporter, silent
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import Store, insert_missing, open_store, schema
from dadpo_bench.store.rows import response_row, save_prompts
from dadpo_bench.types import Comparison, JudgeContext, Prompt, Reply, Response
from judges import template
from judges.backends import Answer, local
from judges.chat import Chat, ChatJudge
from judges.verdicts import Reading
from tests.engine.spreading import Spread
from tests.judges.scripted_server import says, serving
from tests.judges.test_local_backend import leaning
from tests.tiny import build_tiny_model


@pytest.fixture(scope="module", autouse=True)
def fp32() -> Iterator[None]:
    """And the same marks around the responses in every question."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "compute_dtype", lambda: torch.float32)
        patch.setattr(template.secrets, "token_hex", lambda _: "0123456789abcdef")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    return leaning(build_tiny_model(folder / "tiny", context=4096), folder, "A", "B")


def said(side: str, n: int) -> Stored:
    turns = (f"Question {n}?", "And then?") if n == 2 else (f"Question {n}?",)
    replies = tuple(Reply(text=f"{side} says {n}. " * (n + turn)) for turn in range(1, len(turns) + 1))
    return Stored(f"{side}{n}", Response(prompt=Prompt(id=f"q{n}", turns=turns), replies=replies))


MATCHES: list[Match] = [(said("ours", n), said("theirs", n)) for n in range(6)]
EVERY = 12
"""Comparisons in both orders, and responses."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(filled(tmp_path / "x.sqlite3")) as opened:
        yield opened


def filled(path: Path) -> Store:
    """A store that holds the responses."""
    opened = open_store(str(path))
    with opened.write() as session:
        save_prompts(session, [ours.response.prompt for ours, _ in MATCHES])
        rows = [response_row(*stored, "m", "b") for match in MATCHES for stored in match]
        insert_missing(session, schema.Response, rows)
    return opened


Judge = Callable[[Path], tuple[str, dict[str, Any]]]


def settings_of(model: Path, **more: Any) -> dict[str, Any]:
    """Four questions are a share."""
    return {"backend": "local", "model": str(model), "max_tokens": 2, "batch_size": 1, **more}


def graded(model: Path, **more: Any) -> tuple[str, dict[str, Any]]:
    return "chat", settings_of(model, template="graded", label_mass=0.0, **more)


def scored(model: Path) -> tuple[str, dict[str, Any]]:
    return "chat-score", settings_of(model)


def panel(model: Path) -> tuple[str, dict[str, Any]]:
    members = [{"judge": name, "settings": values} for name, values in (graded(model), scored(model))]
    return "panel", {"members": members, "combine": "mean"}


def pmi(model: Path) -> tuple[str, dict[str, Any]]:
    return "pmi", {"model": str(model), "max_tokens": 64}


def opened(bench: Bench, name: str, settings: dict[str, Any]) -> OpenJudge:
    return note_judge(bench, name, *construct_judge(name, settings, JudgeContext(Path, None)))


def kept(store: Store) -> list[dict[str, Any]]:
    """All judgments but for when, and how long they took."""
    with store.read() as session:
        rows = [
            {column.name: getattr(row, column.name) for column in table.__table__.columns}
            for table in (schema.Verdict, schema.Rating)
            for row in session.query(table).order_by(*table.__table__.primary_key)
        ]
    for row in rows:
        del row["asked"], row["seconds"]
        row["reason"] = row["reason"][: len("label mass 0.12")]
    return rows


def numbers(rows: list[dict[str, Any]]) -> list[float]:
    """Preferences and ratings, taken out of the rows: they are equal but for rounding."""
    found = [(row.pop("preference", None), row.pop("value", None)) for row in rows]
    return [number for pair in found for number in pair if number is not None]


def by_text(_: ChatJudge[Any, Any], answer: Answer) -> Reading:
    """A rating of whatever a tiny model says."""
    return Reading(1.0 + sum(answer.text.encode()) % 10)


@pytest.mark.parametrize(
    ("judge", "shares", "judgments"),
    [(graded, [4] * 3, EVERY), (scored, [4] * 3, EVERY), (pmi, [8, 4], EVERY), (panel, [4] * 6, 3 * EVERY)],
)
def test_workers_say_what_this_process_says(
    judge: Judge, shares: list[int], judgments: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if judge is scored:
        monkeypatch.setattr(ChatJudge, "read", by_text)
    found = []
    spread = Spread()
    for engine in (LocalEngine(), spread):
        with closing(filled(tmp_path / f"{type(engine).__name__}.sqlite3")) as store:
            bench = Bench(store, engine, silent())
            reasons = ask(bench, opened(bench, *judge(model)), MATCHES, "")
            found.append((sorted(reasons), kept(store)))
    here, there = (numbers(rows) for _, rows in found)
    assert there == pytest.approx(here, abs=1e-5)
    assert len(set(there)) > 3
    assert found[0] == found[1]
    assert len(found[1][1]) == judgments
    assert spread.shares == shares


def test_a_judge_travels_without_what_is_loaded_open_counted_or_heard(model: Path, store: Store) -> None:
    bench = Bench(store, LocalEngine(), silent())
    judge = opened(bench, *graded(model)).judge
    judge.tell(Console().print)
    fresh = len(cloudpickle.dumps(judge))
    dict(judge.judge([comparison(0)]))
    assert {"model", "tokenizer"} <= vars(judge.backend._scoring).keys()
    sent = cloudpickle.dumps(judge)
    assert len(sent) < fresh + 1000
    there = cloudpickle.loads(sent)
    assert not {"model", "tokenizer"} & vars(there.backend._scoring).keys()
    assert there.bill().startswith("0 questions")
    assert there.identity() == judge.identity()


def test_a_judge_is_found_from_another_folder(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    bench = Bench(store, LocalEngine(), silent())
    sent = cloudpickle.dumps(opened(bench, *graded(Path(model.name))).judge)
    monkeypatch.chdir(tmp_path)
    ((_, verdict),) = cloudpickle.loads(sent).judge([comparison(0)])
    assert verdict.resolved_model == model.name


def comparison(n: int) -> Comparison:
    ours, theirs = MATCHES[n]
    return Comparison(contestant=ours.response, baseline=theirs.response, order="ab")


def test_what_asks_an_endpoint_is_never_sent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    engine = Spread()
    bench = Bench(store, engine, silent())
    with serving(says("[[A]] [[5]]")) as server:
        for name in ("chat", "chat-score"):
            assert ask(bench, opened(bench, name, {"model": "m", "base_url": server.url}), MATCHES, "") == []
        assert len(server.bodies) == EVERY + EVERY + 2  # of one prompt two turns
    assert engine.sent == []


def failing_at(number: int, failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """That question that the model is asked goes wrong, counted from 1."""
    asked, original = count(1), local.continuations

    def fails(*arguments: Any) -> Any:
        if next(asked) == number:
            raise failure
        return original(*arguments)

    monkeypatch.setattr(local, "continuations", fails)


def test_a_share_that_fails_is_named_and_keeps_no_other_from_its_verdicts(
    model: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(6, ValueError("a bad question"), monkeypatch)
    engine = Spread()
    bench = Bench(store, engine, silent())
    named = r"^1 of 3 failed: 4 questions from that on prompt q2 on \(ValueError: a bad question\)"
    with pytest.raises(WorkError, match=named):
        ask(bench, opened(bench, *graded(model)), MATCHES, "")
    assert len(kept(store)) == EVERY - 4
    done = {row["contestant_response"] for row in kept(store)}
    assert done == {"ours0", "ours1", "ours4", "ours5"}
    ask(bench, opened(bench, *graded(model)), [m for m in MATCHES if m[0].key not in done], "")
    assert engine.shares == [4] * 4
    assert len(kept(store)) == EVERY


@pytest.mark.parametrize(
    ("failure", "told", "shares", "least"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), r"^4 questions from that on prompt q2 on: .*batch_size", 3, 8),
        (UserError("mend it"), "^mend it$", 2, 4),  # it concerns all questions
    ],
)
def test_what_was_said_before_a_failure_stands_and_the_other_shares_too_where_it_is_not_theirs(
    failure: Exception, told: str, shares: int, least: int, model: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(7, failure, monkeypatch)
    engine = Spread()
    bench = Bench(store, engine, silent())
    with pytest.raises((WorkError, UserError), match=told):
        ask(bench, opened(bench, *graded(model)), MATCHES, "")
    assert engine.shares == [4] * shares
    assert least < len(kept(store)) < least + 4


class Stopped(Spread):
    """Ctrl-C comes behind the first share."""

    def map(self, make: Callable[[], Any], items: Sequence[Any], name: Callable[[Any], str]) -> Iterator[Any]:
        for found in super().map(make, items, name):
            yield found
            signal.raise_signal(signal.SIGINT)


def test_the_first_ctrl_c_stops_and_what_arrived_is_kept(
    model: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chat, "finish", lambda _: pytest.fail("nothing is in flight here"))
    bench = Bench(store, Stopped(), silent())
    with pytest.raises(KeyboardInterrupt):
        ask(bench, opened(bench, *graded(model)), MATCHES, "")
    assert len(kept(store)) == 4


def test_the_bill_is_of_what_arrived(model: Path, store: Store) -> None:
    told = io.StringIO()
    bench = Bench(store, Spread(), Reporter(Console(file=told, width=200)))
    ask(bench, opened(bench, *graded(model)), MATCHES, "judge")
    rows = kept(store)
    answered = sum(row["answer_tokens"] for row in rows)
    read = sum(row["tokens"] for row in rows) - answered
    assert f"judge: 12 verdicts, {read:,} tokens read, {answered} answered, by workers" in told.getvalue()
    assert read > answered > 0
