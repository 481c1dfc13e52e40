"""Settings of chat judges, as `--set` gives them; judges and questions that many tests share."""

from pathlib import Path
from typing import Any

from dadpo_bench.judging.comparisons import check_judge
from dadpo_bench.types import Comparison, JudgeContext, Order, Outcome, Prompt, Reply, Response, Verdict
from judges.chat import Chat
from tests.judges.scripted_server import ScriptedServer

KEY = "sk-secret-0123456789"
CONTEXT = JudgeContext(Path, None)


def chat_config(**settings: Any) -> Any:
    """Of `chat`, on the backend that is named or the usual one."""
    return check_judge("chat", settings)[1]


def score_config(**settings: Any) -> Any:
    """Of `chat-score`."""
    return check_judge("chat-score", settings)[1]


def judge_of(server: ScriptedServer, **settings: Any) -> Chat:
    defaults = {"model": "judge", "base_url": server.url, "backoff_seconds": 0.0, "attempts": 3}
    return Chat(chat_config(**(defaults | settings)), CONTEXT)


def comparison(name: str = "0", a: str = "good", b: str = "bad", order: Order = "ab") -> Comparison:
    prompt = Prompt(id=name, turns=(f"Question {name}?",))
    return Comparison(
        contestant=Response(prompt=prompt, replies=(Reply(text=a),)),
        baseline=Response(prompt=prompt, replies=(Reply(text=b),)),
        order=order,
    )


def unscored(reason: str) -> tuple[Outcome, str]:
    return (Outcome.unscored, reason)


def said(verdict: Verdict) -> tuple[Outcome, str]:
    return (verdict.outcome, verdict.reason)
