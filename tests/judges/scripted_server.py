"""A chat endpoint that answers by script: good, broken, slow, refusing, or gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Act:
    """What the server does with one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    held: bool = False
    """Answer only when the server stops."""
    dropped: bool = False
    """Close the connection without a word."""
    torn: bool = False
    """Close it in the middle of the body."""


def says(text: str | None, finish: str = "stop", **message: Any) -> Act:
    """A well-formed answer."""
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge-2026-01-01",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99},
    }
    return Act(json.dumps(answer).encode())


def fails(status: int, code: str = "", message: str = "no", **headers: str) -> Act:
    """An error in OpenAI's form."""
    body = json.dumps({"error": {"message": message, "code": code or None, "type": "t", "param": None}})
    return Act(body.encode(), status, {name.replace("_", "-"): value for name, value in headers.items()})


Script = Callable[[int, dict[str, Any]], Act]
"""(number of the request, its body) → what to do."""


class ScriptedServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1 and records what it was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.asked = threading.Event()
        """Set at the first request."""
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        """The API's base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the script."""


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            number = len(server.bodies)
            server.bodies.append(body)
            server.keys.append(self.headers["authorization"])
            server.headers.append(self.headers)
            server.paths.append(self.path)
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        server.asked.set()
        act = server.script(number, body)
        if act.held:
            server.stopping.wait(30)
        with server.lock:
            server.open -= 1
        if act.dropped:
            self.close_connection = True
            return
        self.send_response(act.status)
        for name, value in {"content-type": "application/json", **act.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(act.body)))
        self.end_headers()
        self.wfile.write(act.body[: len(act.body) // 2] if act.torn else act.body)
        self.close_connection |= act.torn

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def serving(script: Script | Act | list[Act]) -> Iterator[ScriptedServer]:
    """A server that follows the script: one act for ever, a list once through, or a function."""

    def follow(number: int, body: dict[str, Any]) -> Act:
        if isinstance(script, Act):
            return script
        return script[number] if isinstance(script, list) else script(number, body)

    with ScriptedServer(follow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()
