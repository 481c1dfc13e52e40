"""A report on disk, and Chromium to look at it with."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.progress import silent
from dadpo_bench.report import write_report
from dadpo_bench.store import open_store

REFERENCE = Path(__file__).parents[2] / "results" / "reference.sqlite3"
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: `make browser` installs it")


def copied(target: Path) -> Path:
    """The committed reference as a store that may be written."""
    shutil.copy(REFERENCE, target)
    with closing(sqlite3.connect(target)) as raw:
        raw.execute("PRAGMA application_id=0")
    return target


def written(store: Path, folder: Path) -> Path:
    """The report of a store."""
    with closing(open_store(str(store), create=False)) as opened:
        write_report(opened, folder, silent())
    return folder


@contextmanager
def serving(store: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of `dadpo-bench view`, started as one would, and its process."""
    command = [sys.executable, "-m", "dadpo_bench", "view", "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        assert program.stdout is not None
        said = program.stdout.readline()
        try:
            yield said[said.index("http") :].split()[0], program
        finally:
            program.terminate()


class Looking:
    """A page, with all that it asked for and complained of. `where` is the report's folder, or a server's address."""

    def __init__(self, page: Any, where: Path | str) -> None:
        self.page = page
        self.base = where if isinstance(where, str) else f"{where.resolve().as_uri()}/"
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: str) -> None:
        """A page of the report, by its path and what follows `#`."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.base}{path}")
        if path.startswith("comparisons"):
            self.page.locator("#count:not(:empty)").wait_for()

    @property
    def foreign(self) -> list[str]:
        """Requests for anything that is not the report's own file."""
        return [url for url in self.requests if not (url.startswith(self.base) or url == "about:blank")]

    def text(self, selector: str) -> str:
        """What is shown there."""
        found: str = self.page.locator(selector).inner_text()
        return found


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Closed before other tests run: its event loop is theirs too."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        # Chromium's own sandbox cannot be nested in a container that runs as root.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def looking(browser: Any, where: Path | str, **context: Any) -> Iterator[Looking]:
    """A fresh profile; `context` are playwright's options, e.g. `color_scheme`."""
    opened = browser.new_context(**context)
    try:
        yield Looking(opened.new_page(), where)
    finally:
        opened.close()
