"""The report as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.progress import Reporter
from dadpo_bench.report.site import Site
from dadpo_bench.store import Store

_LIST = "files.json"
"""Every file of a report, in it: a folder that holds anything else is not replaced."""


class Written(NamedTuple):
    """What was written."""

    page: Path
    """To begin with."""
    files: int
    size: int
    """Bytes."""
    comparisons: int


def write_report(store: Store, folder: Path, reporter: Reporter) -> Written:
    """Write every page; an earlier report in its place is replaced by a finished one only.

    Raises `UserError` where something else lies there or nothing is scored, `WorkError` where it cannot be written.
    """
    folder = folder.expanduser().resolve()
    _check(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made, before = Path(scratch) / "report", Path(scratch) / "before"
            size, files, comparisons = _write(store, made, reporter)
            _check(folder)
            if folder.exists():
                folder.replace(before)
            made.replace(folder)
    except OSError as error:
        raise WorkError(f"cannot write {folder}: {error.strerror or error}") from error
    return Written(folder / "index.html", files, size, comparisons)


def _check(folder: Path) -> None:
    """Raises `UserError` where anything lies there that is no part of a report."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is there and is no folder: name another --out")
    try:
        listed = set(json.loads((folder / _LIST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        listed = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in listed:
            raise UserError(f"{folder} holds {path.name}, which is no part of a report: name another --out")


def _write(store: Store, folder: Path, reporter: Reporter) -> tuple[int, int, int]:
    size = 0
    with store.read() as session:
        site = Site(session, store.path.name if store.path else "a team store")
        if not site.sections:
            raise UserError(f"{store.name} has no scores to report: `dadpo-bench run dadpo` makes some")
        paths = list(site.pages)
        folder.mkdir()
        (folder / _LIST).write_text(json.dumps([_LIST, *paths], indent=1) + "\n", encoding="utf-8")
        with reporter.bar("pages", len(paths), "files") as bar:
            for path in paths:
                content = site.content(path).encode()
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
                size += len(content)
                bar.advance()
        return size, len(paths), len(site.comparisons)
