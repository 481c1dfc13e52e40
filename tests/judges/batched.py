"""A chat judge behind the Batch API, as its tests ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dadpo_bench.types import JudgeContext, Verdict
from judges.chat import Chat
from tests.judges.batch_server import BatchServer
from tests.judges.configs import chat_config, comparison
from tests.judges.scripted_server import Act, says

QUICK = {"model": "judge", "backend": "batch", "poll_seconds": 0.01, "backoff_seconds": 0.0}
CONTEXT = JudgeContext(Path, None)


def judge_of(server: BatchServer, **settings: Any) -> Chat:
    return Chat(chat_config(**({**QUICK, "base_url": server.url} | settings)), CONTEXT)


def judged(server: BatchServer, count: int = 1, **settings: Any) -> list[Verdict]:
    found = dict(judge_of(server, **settings).judge([comparison(str(n)) for n in range(count)]))
    return [found[index] for index in range(count)]


def wins(_: dict[str, Any]) -> Act:
    return says("[[A]]")
