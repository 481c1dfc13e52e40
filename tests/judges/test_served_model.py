"""The chat judge against a real server: `transformers serve` with the embedded model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from dadpo_bench.errors import UserError
from dadpo_bench.models.embedded import embedded_teacher
from dadpo_bench.store import open_store, schema
from dadpo_bench.types import Outcome
from tests.conftest import environment, program

SHORT = """
parser = "last-label"
system = "Which answer is better? Say {first} or {second}."
single_turn = "{question} {first} {open}{answer_a}{close} {second} {open}{answer_b}{close}"
multi_turn = "{first} {conversation_a} {second} {conversation_b}"
[labels]
first = "[[A]]"
second = "[[B]]"
"""
COMMAND = Path(sys.executable).with_name("transformers")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> str:
    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing or not COMMAND.is_file():
        pytest.skip(f"`transformers serve` needs {' and '.join(missing) or COMMAND}")
    try:
        return str(embedded_teacher())
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def url(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [COMMAND, "serve", model, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        deadline = time.monotonic() + 180
        while not _healthy(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"`transformers serve` did not come up:\n{log.read_text()[-2000:]}")
            time.sleep(0.5)  # another program's start
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def _healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_whole_judged_task_goes_through_it(url: str, model: str, tiny_recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "served.sqlite3"
    template = tmp_path / "short.toml"
    template.write_text(SHORT)
    settings = {"base_url": url, "max_tokens": 4, "concurrency": 2, "template": template}
    options = [option for name, value in settings.items() for option in ("--set", f"judge_settings.{name}={value}")]
    command = ("run", "dadpo", "--recipe", tiny_recipe, "--store", store, "--judge", f"chat:{model}", *options)
    done = program(*command, "--json", cwd=tmp_path, env={**environment(), "NO_PROXY": "127.0.0.1"})
    assert done.returncode == 0, done.stderr
    with closing(open_store(str(store))) as opened, opened.read() as session:
        verdicts = session.scalars(select(schema.Verdict)).all()
        canaries = session.scalars(select(schema.Contestant).where(schema.Contestant.kind == "canary")).all()
    # Student, dSFT and daDPO against the teacher on four prompts, canaries against dSFT on two; equal answers fall
    # together, so at most so many questions.
    assert len(canaries) == 7
    assert 2 * 4 < len(verdicts) <= 2 * (3 * 4 + 7 * 2)
    asked = [verdict for verdict in verdicts if verdict.reason != "identical"]
    assert all(verdict.raw and model in verdict.resolved_model and verdict.tokens for verdict in asked)
    assert {v.reason for v in asked if v.outcome == Outcome.unscored} <= {"unparsable", "too long"}
    scored = [verdict for verdict in asked if verdict.outcome != Outcome.unscored]
    assert all("[[A]]" in verdict.raw or "[[B]]" in verdict.raw for verdict in scored)
    rows = json.loads(done.stdout)["rows"]
    assert all(row["prompts"] + row["unscored"] == 4 for row in rows if row["contestant"] != row["baseline"])
