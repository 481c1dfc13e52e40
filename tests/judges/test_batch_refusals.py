"""The Batch API of a server that does not take batches, or takes them and fails."""

from __future__ import annotations

import traceback

import pytest

from dadpo_bench.errors import UserError, WorkError
from judges.backends.batch import Batch, BatchConfig
from tests.judges.batch_server import serving_batches
from tests.judges.batched import judged, wins
from tests.judges.configs import KEY
from tests.judges.scripted_server import Act, fails

pytestmark = pytest.mark.usefixtures("haste")


@pytest.mark.parametrize(
    ("path", "status", "remedy"),
    [
        ("POST /v1/files", 401, "check OPENAI_API_KEY"),
        ("POST /v1/files", 403, "may not use files and batches"),
        ("POST /v1/files", 404, "set backend to endpoint"),
        ("GET /v1/batches", 404, "set backend to endpoint"),
        ("POST /v1/batches", 403, "may not use files and batches"),
        ("GET /v1/batches/batch_0", 401, "check OPENAI_API_KEY"),
    ],
)
def test_a_permanent_refusal_ends_the_work_and_names_the_remedy(
    path: str, status: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving_batches(wins) as server:
        server.refuse[path] = [fails(status, message=f"Incorrect API key provided: {KEY}")]
        with pytest.raises(UserError, match=remedy) as caught:
            judged(server, 3)
        assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("path", ["GET /v1/batches", "POST /v1/files", "GET /v1/files/file-output-0/content"])
def test_passing_failures_are_tried_again(path: str) -> None:
    with serving_batches(wins) as server:
        server.refuse[path] = [fails(500), Act(dropped=True)]
        assert len(judged(server, 3)) == 3
        assert len(server.batches) == 1


@pytest.mark.parametrize(
    "act", [Act(b"<html>gateway</html>"), Act(b'"x"'), Act(b'{"data": 3}'), Act(b"[" * 100_000), fails(400)]
)
def test_a_server_that_answers_otherwise_ends_the_work(act: Act) -> None:
    with serving_batches(wins) as server:
        server.refuse["GET /v1/batches"] = [act] * 30
        with pytest.raises(WorkError, match=r"endpoint local takes no batches now \((unparsable|api error: BadReq)"):
            judged(server)
        assert server.batches == []


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("token_limit_exceeded", UserError, "set judge_settings.concurrency to fewer questions than 10,000"),
        ("model_not_found", UserError, "no model 'judge' for batches"),
        ("invalid_json_line", WorkError, "a batch is invalid: invalid_json_line"),
        (KEY, WorkError, "a batch is invalid: without a code"),
        (None, WorkError, "a batch is invalid: without a code"),
    ],
)
def test_a_batch_that_is_not_begun_says_why_by_its_code_alone(
    code: str | None, error: type[Exception], words: str
) -> None:
    with serving_batches(wins, lambda _: "failed") as server:
        server.errors = [{"code": code, "message": f"Of {KEY}.", "line": 1, "param": None}]
        with pytest.raises(error, match=words) as caught:
            judged(server, 3)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_batch_goes_to_one_server() -> None:
    with pytest.raises(UserError, match="give one base_url"):
        Batch(BatchConfig(model="judge", base_url=("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")))


def test_what_goes_on_and_cannot_be_read_is_not_paid_for_again() -> None:
    with serving_batches(wins) as server:
        server.upload(b"")
        server.create(
            {
                "completion_window": "24h",
                "input_file_id": "file-0",
                "endpoint": "/v1/chat/completions",
                "metadata": {"made_by": "dadpo-bench", "model": "judge"},
            }
        )
        del server.files["file-0"]
        with pytest.raises(WorkError, match="goes on, and its questions cannot be read"):
            judged(server)
        assert len(server.batches) == 1
