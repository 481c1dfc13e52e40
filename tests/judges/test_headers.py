"""What goes with a request to gateways and Azure: extra headers, the key in another one, an API version."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.errors import UserError
from dadpo_bench.judging.comparisons import check_judge
from dadpo_bench.types import JudgeContext
from judges.chat import Chat
from tests.judges.configs import chat_config, comparison, judge_of
from tests.judges.scripted_server import Act, fails, says, serving

KEY, SECRET = "sk-secret-0123456789", "tenant-secret-9876543210"
CONTEXT = JudgeContext(Path, None)
HEADERS = {"headers": {"X-Tenant": "TENANT_TOKEN"}}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("TENANT_TOKEN", SECRET)


def test_extra_headers_go_with_every_request_beside_the_key() -> None:
    with serving([fails(500), says("[[A]]")]) as server:
        list(judge_of(server, **HEADERS).judge([comparison()]))
    assert [(head["x-tenant"], head["authorization"]) for head in server.headers] == [(SECRET, f"Bearer {KEY}")] * 2


def test_azure_is_given_the_key_in_its_own_header_and_the_version_in_the_query() -> None:
    with serving(says("[[A]]")) as server:
        url = server.url.removesuffix("/v1") + "/openai/deployments/judge"
        settings = {"base_url": url, "key_header": "api-key", "api_version": "2024-10-21", **HEADERS}
        list(judge_of(server, **settings).judge([comparison()]))
    (head,) = server.headers
    assert (head["api-key"], head["x-tenant"], head["authorization"]) == (KEY, SECRET, None)
    assert server.paths == ["/openai/deployments/judge/chat/completions?api-version=2024-10-21"]


@pytest.mark.parametrize("act", [fails(401, message=f"{KEY} {SECRET}"), fails(307, Location="http://127.0.0.1:9/v1")])
def test_secrets_reach_the_endpoint_and_nothing_else(act: Act, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = {"key_header": "api-key", **HEADERS}
    with serving(lambda number, _: says("[[A]]") if number == 0 else act) as server:
        judge = judge_of(server, **settings)
        ((_, verdict),) = judge.judge([comparison()])
        with pytest.raises(UserError) as caught:
            list(judge.judge([comparison()]))
    assert [(head["api-key"], head["x-tenant"]) for head in server.headers] == [(KEY, SECRET)] * 2
    servers = [vars(one) for one in judge.backend.pool.servers]
    state = [vars(judge), vars(judge.backend), servers, vars(judge.config), judge.identity(), verdict, judge.bill()]
    told = repr(state) + caplog.text + "".join(traceback.format_exception(caught.value))
    assert KEY not in told
    assert SECRET not in told


def test_keys_are_not_sent_on_to_where_a_server_points() -> None:
    with serving(says("[[A]]")) as elsewhere:
        moved = fails(307, Location=f"{elsewhere.url}/chat/completions")
        with serving(moved) as server, pytest.raises(UserError, match=r"answered 307: the API is elsewhere.*base_url"):
            list(judge_of(server, **HEADERS).judge([comparison()]))
        assert elsewhere.bodies == []


def test_a_missing_header_variable_is_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENANT_TOKEN")
    config = chat_config(model="j", base_url="http://127.0.0.1/v1", **HEADERS)
    with pytest.raises(UserError, match="no X-Tenant: set TENANT_TOKEN"):
        Chat(config, CONTEXT)
    Chat(config, CONTEXT, key=False)  # --dry-run


def test_a_header_value_no_header_may_carry_is_refused_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANT_TOKEN", SECRET + "\nX-Other: 1")
    with pytest.raises(UserError, match="TENANT_TOKEN holds characters") as caught:
        Chat(chat_config(model="j", base_url="http://127.0.0.1/v1", **HEADERS), CONTEXT)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "settings",
    [
        {"headers": {"X-Api-Key": "sk-planted-key"}},
        {"headers": {"X-Api-Key": "hf_planted"}},
        {"headers": {"X-Api-Key: sk-planted-key": "NAME"}},
        {"key_header": "sk planted-key"},
        {"api_version": "2024&key=planted"},
    ],
)
def test_a_setting_that_holds_a_secret_or_worse_is_refused_unsaid(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        check_judge("chat", {"model": "j", "base_url": "http://127.0.0.1/v1", **settings})
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("header", ["authorization", "API-KEY"])
def test_a_header_that_carries_the_key_is_set_in_one_place(header: str) -> None:
    settings = {"model": "j", "base_url": "http://127.0.0.1/v1", "key_header": "api-key"}
    with pytest.raises(UserError, match="set api_key_env and key_header"):
        chat_config(**settings, headers={header: "TENANT_TOKEN"})


def test_headers_and_versions_are_no_part_of_the_judges_identity() -> None:
    def identity(**settings: Any) -> Any:
        return Chat(chat_config(model="j", base_url="http://127.0.0.1/v1", **settings), CONTEXT).identity()

    assert identity() == identity(key_header="api-key", api_version="2024-10-21", **HEADERS)
