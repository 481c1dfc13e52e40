"""No key and no proxy of this machine's reaches a test of judges."""

import pytest

from judges.backends import batch


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for others who may still ask."""
    monkeypatch.setattr(batch, "_MOMENT", 0.01)
