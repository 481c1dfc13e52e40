"""The chat judge against a real server: `transformers serve` with the embedded model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import httpx2
import pytest

from dadpo_bench.errors import UserError
from dadpo_bench.models.embedded import embedded_teacher
from dadpo_bench.types import Comparison, JudgeContext, Order, Outcome, Prompt, Reply, Response
from judges.chat import Chat
from tests.judges.configs import chat_config

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


def test_both_orders_of_two_prompts_come_back_with_a_verdict_or_a_reason(
    url: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = {
        "What is the capital of France?": ("Paris.", "Bananas are yellow fruit."),
        "Name two colours.": ("Red and blue.", "I do not know."),
    }
    comparisons = [
        Comparison(contestant=response(question, good), baseline=response(question, bad), order=order)
        for question, (good, bad) in asked.items()
        for order in get_args(Order)
    ]
    judge = Chat(
        chat_config(model=model, base_url=url, max_tokens=48, concurrency=2), JudgeContext(lambda: Path(model), None)
    )
    verdicts = dict(judge.judge(comparisons))
    assert sorted(verdicts) == [0, 1, 2, 3]
    for verdict in verdicts.values():
        assert model in verdict.resolved_model
        assert verdict.tokens > 0
        assert verdict.raw
        if verdict.outcome is Outcome.unscored:
            assert verdict.reason in ("unparsable", "too long")
        else:
            assert any(label in verdict.raw for label in judge.template.labels.values())


def response(question: str, text: str) -> Response:
    return Response(prompt=Prompt(id=question, turns=(question,)), replies=(Reply(text=text),))
