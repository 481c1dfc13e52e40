"""The report of a living store, served on this machine: made anew as the store changes, never written to."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dadpo_bench.report.search import Search
from dadpo_bench.report.site import STATIC, Site
from dadpo_bench.store import Store, schema

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_REST = 4.0
"""Pages are made anew at most this often, seconds, and never take more than a fifth of the time."""


class _Now:
    """The site of the store as it was lately, for one request at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._site: Site | None = None
        self._search: Search | None = None
        self.version = ""
        self._due = 0.0

    def _stamp(self) -> str:
        """Changes with the store: file times where it is a file, else counts."""
        path = self._store.path
        if path is not None:
            files = (path, path.with_name(f"{path.name}-wal"))
            return "-".join(str(f.stat().st_mtime_ns) for f in files if f.exists())
        rows: tuple[Any, ...] = (schema.Verdict, schema.Rating, schema.Response, schema.Metric, schema.StageTime)
        rows += (schema.Score, schema.Run, schema.Run.finished)
        with self._store.read() as session:
            stages = session.scalar(select(func.max(schema.Activity.updated)))
            return "-".join(
                [*(str(session.scalar(select(func.count(row)))) for row in map(_counted, rows)), str(stages)]
            )

    @contextmanager
    def site(self) -> Iterator[Site]:
        """The site, made anew where the store has changed and that is due."""
        with self._lock:
            stamp = self._stamp()
            if self._site is None or (stamp != self.version and time.monotonic() >= self._due):
                if self._session is not None:
                    self._session.close()
                began = time.monotonic()
                self._session = Session(self._store.engine, expire_on_commit=False)
                name = self._store.path.name if self._store.path else "a team store"
                self._site, self._search, self.version = Site(self._session, name, live=stamp), None, stamp
                _ = self._site.comparisons
                took = time.monotonic() - began
                self._due = time.monotonic() + max(_REST, 4 * took)
            try:
                yield self._site
            finally:
                # A snapshot that is held keeps SQLite from tidying its log. What was read stays.
                self._site.session.commit()

    def found(self, query: str) -> list[str]:
        """Keys of comparisons; see `Search`."""
        with self.site() as site:
            if self._search is None:
                self._search = Search(site.session, site.comparisons)
            return self._search.found(query)


def _counted(row: Any) -> Any:
    """A column to count: of a table its first, which is never null."""
    return row if not hasattr(row, "__table__") else row.__table__.columns.values()[0]


class _KnownHosts:
    """Answers requests for this machine's own names and for addresses: another site's name for it is refused, which a
    browser was led here by (DNS rebinding)."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._known(Headers(scope=scope).get("host", "")):
            refused = PlainTextResponse("This is another machine's name.", 400, HEADERS)
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _known(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            return bool(ip_address(name))
        except ValueError:
            return name in self._names


def app_of(store: Store, names: Collection[str]) -> Starlette:
    """The pages, a search, and what tells a page that it is old; `names` are the host names that are answered."""
    now = _Now(store)

    def page(path: str) -> Response:
        with now.site() as site:
            if path not in site.pages:
                return PlainTextResponse("There is no such page.", 404, HEADERS)
            content = site.content(path)
        kind = STATIC.get(path) or ("text/javascript" if path.endswith(".js") else "text/html")
        return Response(content.encode(), headers=HEADERS, media_type=kind)

    async def pages(request: Request) -> Response:
        return await run_in_threadpool(page, request.path_params["path"])

    def version() -> str:
        with now.site():
            return now.version

    async def live(request: Request) -> Response:
        return JSONResponse({"version": await run_in_threadpool(version)}, headers=HEADERS)

    async def search(request: Request) -> Response:
        query = request.query_params.get("q", "")[:400]
        return JSONResponse({"keys": await run_in_threadpool(now.found, query)}, headers=HEADERS)

    async def first(request: Request) -> Response:
        return RedirectResponse("/index.html", headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", first),
            Route("/live.json", live),
            Route("/search.json", search),
            Route("/{path:path}", pages),
        ],
        middleware=[Middleware(_KnownHosts, names=names)],
    )
