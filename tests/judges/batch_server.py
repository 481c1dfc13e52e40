"""A server of files and batches that answers by script, as OpenAI documents /v1/files and /v1/batches."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.judges.scripted_server import Act, fails

PAGE = 2
"""Batches on a page at most, whatever limit is asked for."""

Line = dict[str, Any]
Answerer = Callable[[dict[str, Any]], Act | str | None]
"""A request's body → its answer; the code of an error instead of one; None for no line at all."""
Ends = Callable[[int], str]
"""Number of a batch → its status from the second look on; `in_progress` for one that goes on."""


class BatchServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1; `answer` and `ends` are its script."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Answerer, ends: Ends) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.ends = answer, ends
        self.refuse: dict[str, list[Act]] = {}
        """By method and path, e.g. `POST /v1/files`: what comes back of the next ones, where it is not the usual. A
        dropped one is done all the same."""
        self.files: dict[str, bytes] = {}
        self.batches: list[dict[str, Any]] = []
        self.errors: list[Line] = []
        """Of batches that fail."""
        self.looks: dict[str, int] = {}
        self.keys: set[str | None] = set()
        self.seen = threading.Event()
        """Set when a batch was looked at after it was made."""
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        """The API's base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def questions(self, number: int) -> list[dict[str, Any]]:
        """The requests' bodies of a batch."""
        return [line["body"] for line in self.lines(number)]

    def lines(self, number: int) -> list[Line]:
        """Of a batch's input file."""
        return [json.loads(line) for line in self.files[self.batches[number]["input_file_id"]].splitlines()]

    @property
    def asked(self) -> int:
        """Requests in all batches."""
        return sum(len(self.lines(number)) for number in range(len(self.batches)))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the script."""

    def upload(self, content: bytes) -> Act:
        """Of a multipart body's file."""
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return _json({"id": name, "object": "file", "bytes": len(content), "purpose": "batch", "filename": "q.jsonl"})

    def create(self, body: dict[str, Any]) -> Act:
        """A batch of an uploaded file."""
        assert body["completion_window"] == "24h"
        assert body["input_file_id"] in self.files
        batch: dict[str, Any] = {
            "id": f"batch_{len(self.batches)}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "completion_window": "24h",
            "input_file_id": body["input_file_id"],
            "metadata": body["metadata"],
            "status": "validating",
            "created_at": int(time.time()),
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        self.batches.append(batch)
        batch["request_counts"]["total"] = len(self.lines(-1))
        return _json(batch)

    def look(self, number: int) -> Act:
        """At a batch: it ends at the second look."""
        batch = self.batches[number]
        if batch["status"] in ("validating", "in_progress"):
            self.looks[batch["id"]] = self.looks.get(batch["id"], 0) + 1
            self.seen.set()
            if self.looks[batch["id"]] > 1:
                self.end(number, self.ends(number))
        return _json(batch)

    def end(self, number: int, status: str) -> None:
        """With the files that belong to it."""
        batch = self.batches[number]
        batch["status"] = status
        if status == "failed":
            batch["errors"] = {"object": "list", "data": self.errors}
        if status in ("failed", "in_progress"):
            return
        output, errors = [], []
        for line in self.lines(number):
            act = self.answer(line["body"])
            said: Line = {"id": "batch_req_1", "custom_id": line["custom_id"], "response": None, "error": None}
            if isinstance(act, str):
                said["error"] = {"code": act, "message": "no"}
            elif act:
                said["response"] = {"status_code": act.status, "request_id": "1", "body": json.loads(act.body)}
            if act is not None:
                (output if isinstance(act, Act) and act.status == 200 else errors).append(said)
        for kind, lines in (("output", output), ("error", errors)):
            if lines:
                name = batch[f"{kind}_file_id"] = f"file-{kind}-{number}"
                # The order of an output file is nobody's.
                self.files[name] = b"".join(json.dumps(line).encode() + b"\n" for line in reversed(lines))

    def listed(self, after: str) -> Act:
        """A page, the newest first."""
        newest = self.batches[::-1]
        first = next((place + 1 for place, batch in enumerate(newest) if batch["id"] == after), 0)
        page = newest[first : first + PAGE]
        return _json({"object": "list", "data": page, "has_more": len(newest) > first + PAGE})


def _json(answer: Any) -> Act:
    return Act(json.dumps(answer).encode())


class _Handler(BaseHTTPRequestHandler):
    server: BatchServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._respond("GET", b"")

    def do_POST(self) -> None:
        self._respond("POST", self.rfile.read(int(self.headers["content-length"])))

    def _respond(self, method: str, body: bytes) -> None:
        with self.server.lock:
            self.server.keys.add(self.headers["authorization"])
            refused = self.server.refuse.get(f"{method} {urlsplit(self.path).path}")
            act = refused.pop(0) if refused else None
            if act is None or act.dropped:
                done = self._act(method, body)
                act = act or done
        if act.dropped:
            self.close_connection = True
            return
        self.send_response(act.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(act.body)))
        self.end_headers()
        self.wfile.write(act.body)

    def _act(self, method: str, body: bytes) -> Act:
        url = urlsplit(self.path)
        match method, url.path.split("/")[2:]:
            case "POST", ["files"]:
                return self.server.upload(self._file(body))
            case "GET", ["files", name, "content"]:
                return Act(self.server.files[name]) if name in self.server.files else fails(404)
            case "POST", ["batches"]:
                return self.server.create(json.loads(body))
            case "GET", ["batches"]:
                return self.server.listed(parse_qs(url.query).get("after", [""])[0])
            case "GET", ["batches", name]:
                return self.server.look(int(name.removeprefix("batch_")))
        return fails(404)

    def _file(self, body: bytes) -> bytes:
        """The part of a multipart/form-data body that is a file; RFC 7578."""
        boundary = self.headers["content-type"].partition("boundary=")[2].strip('"').encode()
        parts = dict(part.split(b"\r\n\r\n", 1) for part in body.split(b"--" + boundary)[1:-1])
        fields = {head: content.removesuffix(b"\r\n") for head, content in parts.items()}
        (purpose,) = (content for head, content in fields.items() if b'name="purpose"' in head)
        (file,) = (content for head, content in fields.items() if b'name="file"' in head)
        assert purpose == b"batch"
        return file

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def serving_batches(answer: Answerer, ends: Ends = lambda _: "completed") -> Iterator[BatchServer]:
    """A server that follows the script."""
    with BatchServer(answer, ends) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
