"""The report as a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.progress import Reporter
from dadpo_bench.report.site import Site
from dadpo_bench.store import Store

_MARK = "data/index.js"
"""What tells a folder of ours from another, which is never replaced."""


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
    if folder.exists() and not (folder / _MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and is no report: name another --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            size, files, comparisons = _write(store, Path(scratch) / "report", reporter)
            if folder.exists():
                shutil.rmtree(folder)
            (Path(scratch) / "report").replace(folder)
    except OSError as error:
        raise WorkError(f"cannot write {folder}: {error.strerror or error}") from error
    return Written(folder / "index.html", files, size, comparisons)


def _write(store: Store, folder: Path, reporter: Reporter) -> tuple[int, int, int]:
    size = 0
    with store.read() as session:
        site = Site(session, store.path.name if store.path else "a team store")
        if not site.sections:
            raise UserError(f"{store.name} has no scores to report: `dadpo-bench run dadpo` makes some")
        paths = list(site.paths())
        with reporter.bar("pages", len(paths), "files") as bar:
            for path in paths:
                content = site.content(path).encode()
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
                size += len(content)
                bar.advance()
        return size, len(paths), len(site.comparisons)
