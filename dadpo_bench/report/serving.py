"""The report of a living store, served on this machine: made anew as the store changes, never written to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

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
        tables = (schema.Verdict, schema.Rating, schema.Response, schema.Metric, schema.StageTime, schema.Score)
        with self._store.read() as session:
            return "-".join(str(session.scalar(select(func.count()).select_from(table))) for table in tables)

    @contextmanager
    def site(self) -> Iterator[Site]:
        """The site, made anew where the store has changed and that is due."""
        with self._lock:
            stamp = self._stamp()
            if self._site is None or (stamp != self.version and time.monotonic() >= self._due):
                if self._session is not None:
                    self._session.close()
                began = time.monotonic()
                self._session = Session(self._store.engine)
                name = self._store.path.name if self._store.path else "a team store"
                self._site, self._search, self.version = Site(self._session, name, live=True), None, stamp
                _ = self._site.comparisons
                took = time.monotonic() - began
                self._due = time.monotonic() + max(_REST, 4 * took)
            try:
                yield self._site
            finally:
                self._site.session.rollback()  # a snapshot that is held keeps SQLite from tidying its log

    def found(self, query: str) -> list[str]:
        """Keys of comparisons; see `Search`."""
        with self.site() as site:
            if self._search is None:
                self._search = Search(site.session, site.comparisons)
            return self._search.found(query)


def app_of(store: Store, hosts: Sequence[str]) -> Starlette:
    """The pages, a search, and what tells a page that it is old. Only `hosts` are answered: no other site's name for
    this address is (DNS rebinding)."""
    now = _Now(store)

    def page(path: str) -> Response:
        with now.site() as site:
            try:
                content = site.content(path)
            except KeyError:
                return PlainTextResponse("There is no such page.", 404, HEADERS)
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
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )
