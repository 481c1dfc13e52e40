"""Settings of chat judges, as `--set` gives them."""

from typing import Any

from dadpo_bench.judging.comparisons import check_judge


def chat_config(**settings: Any) -> Any:
    """Of `chat`, on the backend that is named or the usual one."""
    return check_judge("chat", settings)[1]


def score_config(**settings: Any) -> Any:
    """Of `chat-score`."""
    return check_judge("chat-score", settings)[1]
