"""A tiny teacher on disk, and stores and models to ask a server of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from dadpo_bench.engine import LocalEngine
from dadpo_bench.models import precision
from dadpo_bench.progress import Reporter
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.served import ServedModel
from dadpo_bench.stages.signals import Scored
from dadpo_bench.store import open_store
from dadpo_bench.teacher import Teacher
from dadpo_bench.types import Finish, Prompt, Reply
from tests.served.teacher_server import MODEL, TeacherServer

Served = Callable[..., ServedModel]

_TURNS = ("Tea?", "Red or blue?", "Name three colours.", "What is France?", "Say three.", "First the water?")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no key, fp32."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(precision, "compute_dtype", lambda: torch.float32)


@pytest.fixture
def directory(tiny_models: tuple[Path, Path]) -> Path:
    """The teacher's."""
    return tiny_models[0]


@pytest.fixture
def served(directory: Path) -> Served:
    """`served(server, other_server, protocol=…)`: the teacher as a recipe has it."""

    def made(*servers: TeacherServer | str, **settings: Any) -> ServedModel:
        urls = tuple(server if isinstance(server, str) else server.url for server in servers)
        given = {"protocol": "vllm", "tokenizer": str(directory), "endpoint": urls, "model": MODEL, **settings}
        return ServedModel(Teacher.model_validate(given))

    return made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Of a store of this test's own; what it tells is recorded."""
    return Bench(open_store(str(tmp_path / "x.sqlite3")), LocalEngine(), Reporter(Console(record=True, width=200)))


@pytest.fixture
def pairs() -> list[Scored]:
    """Six, a cut response in each."""
    return [
        Scored(
            Prompt(id=f"p{i}", turns=(turn,)),
            Reply(text=f"The capital of France is Paris, {turn}"),
            Reply(text="First the tea", finish=Finish.length),
        )
        for i, turn in enumerate(_TURNS)
    ]
