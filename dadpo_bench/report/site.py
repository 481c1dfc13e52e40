"""The report as pages by path, each made when it is asked for: written to a folder, or served from a living store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import Session

from dadpo_bench import __version__
from dadpo_bench.leaderboard import View, number, sections
from dadpo_bench.leaderboard.sections import Section
from dadpo_bench.report import judges, overview, provenance, runs_page
from dadpo_bench.report.comparisons import Comparison, comparisons_of
from dadpo_bench.report.methods import Methods
from dadpo_bench.report.parts import Part, index_of, part_data, parts_of
from dadpo_bench.report.stamp import Stamp
from dadpo_bench.report.text import visible
from dadpo_bench.store import judged_boards

_PAGES = {
    "index.html": "Overview",
    "comparisons.html": "Comparisons",
    "runs.html": "Runs",
    "judges.html": "Judges",
    "provenance.html": "Provenance",
}
STATIC = {
    "report.css": "text/css",
    "report.js": "text/javascript",
    "live.js": "text/javascript",
    "markdown-it.min.js": "text/javascript",
    "markdown-it.LICENSE": "text/plain",
    "diff.min.js": "text/javascript",
    "diff.LICENSE": "text/plain",
}
_CALL = "dadpo"
"""What the page's script calls itself: data are calls of it, as pages opened from disk may not fetch."""


class Site:
    """The report of what a store holds now. `session` is read from as long as pages are asked for.

    `live` pages ask their server, and nobody else, whether they are old: it is the stamp that they are of.
    """

    def __init__(self, session: Session, name: str, *, live: Stamp | None = None) -> None:
        self.session, self._name, self._live = session, name, live
        self._heard = {run.id for run in runs_page.running(session, datetime.now(UTC))} if live else set()

    @cached_property
    def sections(self) -> list[Section]:
        """The boards; of a living store those too that are being judged."""
        boards = judged_boards(self.session) if self._live else None
        return sections(self.session, View(by_category=True), boards)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Of all boards."""
        return [c for section in self.sections for p in section.panels for c in comparisons_of(p, section.protocol_key)]

    @cached_property
    def pages(self) -> Mapping[str, Callable[[], str]]:
        """By path, what makes the content."""
        methods = Methods(self.session, self.sections)
        parts = parts_of(self.comparisons)
        contexts: dict[str, Callable[[], Mapping[str, Any]]] = {
            "index.html": lambda: {"underway": self.underway(), **overview.context(self.sections, methods.pages)},
            "comparisons.html": dict,
            "runs.html": lambda: {"underway": self.underway(), **runs_page.context(self.session, self._now)},
            "judges.html": lambda: judges.context(self.session, self.sections),
            "provenance.html": lambda: provenance.context(self.session, self.sections),
        }
        index = partial(index_of, self.sections, self.session, self.comparisons, parts)
        return {
            **{path: partial(self._page, path, path, contexts[path]) for path in _PAGES},
            **{
                path: partial(self._page, path, "method.html", partial(methods.context, path)) for path in methods.pages
            },
            **{path: partial(_static, path) for path in STATIC if self._live or path != "live.js"},
            "data/index.js": lambda: _called("index", index()),
            **{part.path: partial(self._part, part) for part in parts},
        }

    @property
    def _now(self) -> datetime | None:
        return datetime.now(UTC) if self._live else None

    @property
    def silent(self) -> bool:
        """Whether a run that was heard of when this was made is heard of no longer."""
        return bool(self._heard - {run.id for run in runs_page.running(self.session, datetime.now(UTC))})

    def underway(self) -> str:
        """What the runs of a living store are at, as HTML; empty of any other."""
        if not self._live:
            return ""
        going = runs_page.running(self.session, datetime.now(UTC))
        return _environment().get_template("underway.html.j2").render(runs=going)

    def content(self, path: str) -> str:
        """What is at a path. Raises `KeyError` where nothing is."""
        return self.pages[path]()

    def _part(self, part: Part) -> str:
        return _called("part", part.name, part_data(self.session, part))

    def _page(self, path: str, template: str, context: Callable[[], Mapping[str, Any]]) -> str:
        return (
            _environment()
            .get_template(f"{template}.j2")
            .render(
                path=path,
                pages=_PAGES,
                live=(self._live.judged if path == "comparisons.html" else self._live.version) if self._live else "",
                title="dadpo-bench",
                store=self._name,
                version=__version__,
                **context(),
            )
        )


def _static(path: str) -> str:
    return (resources.files("dadpo_bench.report") / "static" / path).read_text(encoding="utf-8")


def _called(function: str, *values: Any) -> str:
    # Escaped to ASCII: half a surrogate pair is no UTF-8, and U+2028 no surprise.
    return f"{_CALL}.{function}({','.join(json.dumps(v, separators=(',', ':')) for v in values)})\n"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("dadpo_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else "" if value is None else value,
    )
    made.filters["number"] = number
    return made
