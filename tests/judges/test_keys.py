"""Where a chat judge's key and address come from, and that a key goes nowhere else."""

from __future__ import annotations

import logging
import re
import traceback

import pytest

from dadpo_bench.errors import UserError
from dadpo_bench.judging.comparisons import check_judge
from judges.chat import Chat
from tests.judges.configs import CONTEXT, KEY, chat_config, comparison, judge_of
from tests.judges.scripted_server import fails, says, serving


def test_without_a_key_nothing_starts_and_the_remedy_is_named() -> None:
    with pytest.raises(
        UserError, match=re.escape("no API key: set OPENAI_API_KEY, or choose a judge without one, such as pmi")
    ):
        Chat(chat_config(model="judge"), CONTEXT)


def test_another_variable_may_hold_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model": "judge", "base_url": "https://api.example.com/v1", "api_key_env": "EXAMPLE_KEY"}
    with pytest.raises(UserError, match="set EXAMPLE_KEY"):
        Chat(chat_config(**settings), CONTEXT)
    monkeypatch.setenv("EXAMPLE_KEY", KEY)
    Chat(chat_config(**settings), CONTEXT)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:9", "127.0.0.2"])
def test_a_local_endpoint_needs_no_key(host: str) -> None:
    Chat(chat_config(model="judge", base_url=f"http://{host}/v1"), CONTEXT)


def test_the_base_url_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(says("[[A]]")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert len(list(judge_of(server, base_url="").judge([comparison()]))) == 1
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", f"https://user:{KEY}@host/v1", f"https://host/v1?key={KEY}",
     "http://host:port/v1", "http://[::1/v1"],
)  # fmt: skip
def test_a_wrong_base_url_is_refused_without_repeating_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError, match="base_url") as caught:
        Chat(chat_config(model="judge", base_url=url), CONTEXT)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_key_no_header_may_carry_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "é")
    with pytest.raises(UserError, match="set it again") as caught:
        Chat(chat_config(model="judge"), CONTEXT)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_the_key_reaches_the_endpoint_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    echo = fails(401, message=f"Incorrect API key provided: {KEY}")
    with serving(lambda number, _: says("[[A]]") if number == 0 else echo) as server:
        judge = judge_of(server)
        (verdict,) = [verdict for _, verdict in judge.judge([comparison()])]
        with pytest.raises(UserError) as caught:
            list(judge.judge([comparison()]))
    assert server.keys == [f"Bearer {KEY}"] * 2
    state = [vars(judge), vars(judge.backend), vars(judge.config), judge.identity(), verdict]
    assert KEY not in repr(state) + repr(judge) + caplog.text
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", ["sk-planted-key", "hf_plantedKey0123", "0123planted"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated(key: str) -> None:
    settings = {"model": "judge", "base_url": "http://127.0.0.1/v1", "api_key_env": key}
    with pytest.raises(UserError, match="api_key_env: write the NAME") as refused:
        check_judge("chat", settings)
    assert "planted" not in str(refused.value)
