"""The report as pages by path, each made when it is asked for: written to a folder, or served from a living store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import Session

from dadpo_bench import __version__
from dadpo_bench.leaderboard import number, sections
from dadpo_bench.leaderboard.sections import Section
from dadpo_bench.report import judges, overview, provenance, runs_page
from dadpo_bench.report.comparisons import Comparison, comparisons_of
from dadpo_bench.report.methods import Methods
from dadpo_bench.report.parts import Part, index_of, part_data, parts_of
from dadpo_bench.report.text import visible

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

    `live` pages ask their server, and nobody else, whether they are old.
    """

    def __init__(self, session: Session, name: str, *, live: bool = False) -> None:
        self.session, self._name, self._live = session, name, live

    @cached_property
    def sections(self) -> list[Section]:
        """The boards."""
        return sections(self.session)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Of all boards."""
        return [c for section in self.sections for p in section.panels for c in comparisons_of(p, section.protocol_key)]

    @cached_property
    def _methods(self) -> Methods:
        return Methods(self.session, self.sections)

    @cached_property
    def _parts(self) -> list[Part]:
        return parts_of(self.comparisons)

    def paths(self) -> Iterator[str]:
        """Every path there is, pages first."""
        yield from _PAGES
        yield from self._methods.pages
        yield from (path for path in STATIC if self._live or path != "live.js")
        yield "data/index.js"
        yield from (part.path for part in self._parts)

    def content(self, path: str) -> str:
        """What is at a path. Raises `KeyError` where nothing is."""
        if path in STATIC:
            return (resources.files("dadpo_bench.report") / "static" / path).read_text(encoding="utf-8")
        if path == "data/index.js":
            return _called("index", index_of(self.sections, self.session, self.comparisons, self._parts))
        for number_, part in enumerate(self._parts):
            if part.path == path:
                return _called("part", number_, part_data(self.session, part))
        if path in self._methods.pages:
            return self._rendered(path, self._methods.context(path), "method.html")
        makers: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            "index.html": lambda: overview.context(self.sections, self._methods.pages),
            "comparisons.html": dict,
            "runs.html": lambda: runs_page.context(self.session),
            "judges.html": lambda: judges.context(self.session, self.sections),
            "provenance.html": lambda: provenance.context(self.session, self.sections),
        }
        return self._rendered(path, makers[path]())

    def _rendered(self, path: str, context: Mapping[str, Any], template: str = "") -> str:
        return (
            _environment()
            .get_template(f"{template or path}.j2")
            .render(
                path=path,
                pages=_PAGES,
                live=self._live,
                title="dadpo-bench",
                store=self._name,
                version=__version__,
                **context,
            )
        )


def _called(function: str, *values: Any) -> str:
    # Escaped to ASCII: half a surrogate pair is no UTF-8, and U+2028 no surprise.
    return f"{_CALL}.{function}({','.join(json.dumps(v, separators=(',', ':')) for v in values)})\n"


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
