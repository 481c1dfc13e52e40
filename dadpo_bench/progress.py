"""What a person sees of long work: live bars on a terminal, plain lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dadpo_bench.counts import counted, lasting, pace


class Bar:
    """Progress of one stage."""

    def __init__(self, reporter: Reporter, label: str, total: int, unit: str, about: str | None = None) -> None:
        self._reporter = reporter
        self.label, self.total, self.unit, self.about = label, total, unit, about
        self.known = about is None
        """Whether `total` is more than a guess: of a training it is told with the first step."""
        self.behind = self.done = 0
        self.began = datetime.now(UTC)
        self._began = self._spoke = time.monotonic()
        self._live = reporter.live
        self._task = self._live.add_task(label, total=total, rate="") if self._live else None
        reporter.bars.append(self)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """So many items are done."""
        self.done += amount
        elapsed = time.monotonic() - self._began
        fresh = self.done - self.behind
        rate = f"{pace(fresh / elapsed)} {note}".rstrip() if elapsed > 0.5 and fresh else note
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self.done, rate=rate)
        elif not self._reporter.quiet and time.monotonic() - self._spoke > 30:
            self._spoke = time.monotonic()
            left = f", {lasting(elapsed / fresh * (self.total - self.done))} left" if fresh else ""
            self._reporter.say(f"  {self.label}: {self.done}/{self.total} {self.unit}, {rate}{left}")

    def note(self, text: str) -> None:
        """What is waited for meanwhile, from any thread."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, rate=text)
        else:
            self._reporter.say(f"  {self.label}: {text}")

    def reach(self, done: int, total: int, note: str = "") -> None:
        """So many of so many items are done, where the total is known only on the way; all but one before this bar."""
        if not self.known and done > 1:
            self.behind = done - 1
        self.total, self.known = total, True
        if self._live is not None and self._task is not None:
            self._live.update(self._task, total=total)
        self.advance(done - self.done, note)

    def finish(self) -> None:
        """The stage is over."""
        seconds = time.monotonic() - self._began
        if self._live is not None and self._task is not None:
            self._live.remove_task(self._task)
        self._reporter.say(f"  {self.label}: {counted(self.done, self.unit)} in {seconds:.1f} s")

    def close(self) -> None:
        """It is shown no longer, finished or not."""
        self._reporter.bars.remove(self)


@dataclass
class Reporter:
    """Where progress goes."""

    console: Console
    quiet: bool = False
    live: Progress | None = None
    bars: list[Bar] = field(default_factory=list)
    """Those at hand; see `watching`."""

    def say(self, text: str) -> None:
        """A plain line, unless quiet. The text is data: no markup is read from it, nor the emoji of `chat:m:`."""
        if not self.quiet:
            self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def owes(self, what: str) -> None:
        """Told before `what` is begun."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show live bars while within, on a terminal; for whom it is not given, it is `running`."""
        before = _RUNNING.set(self)
        try:
            with self._shown():
                yield
        finally:
            _RUNNING.reset(before)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        if self.quiet or not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console, transient=True) as self.live:
            try:
                yield
            finally:
                self.live = None

    @contextmanager
    def bar(self, label: str, total: int, unit: str = "items", about: str | None = None) -> Iterator[Bar]:
        """A bar for work on `total` items; silent where there is none. `about` is the key of what is being made."""
        if not total:
            yield Bar(Reporter(self.console, quiet=True), label, 1, unit)
            return
        bar = Bar(self, label, total, unit, about)
        try:
            yield bar
            bar.finish()
        finally:
            bar.close()

    @contextmanager
    def patient(self, label: str, unit: str = "items") -> Iterator[Callable[[int, int], None]]:
        """For work that is mostly over at once: given what is done of how much, shows a bar after two seconds."""
        began, bars = time.monotonic(), list[Bar]()

        def reach(done: int, total: int) -> None:
            if not bars and time.monotonic() - began > _PATIENCE:
                bars.append(Bar(self, label, total, unit))
            for bar in bars:
                bar.reach(done, total)

        try:
            yield reach
            for bar in bars:
                bar.finish()
        finally:
            for bar in bars:
                bar.close()


_PATIENCE = 2.0
"""Seconds."""


def aside(*, quiet: bool = False) -> Reporter:
    """Bars on a terminal's stderr, for commands whose stdout is the answer; nothing anywhere else."""
    console = Console(stderr=True)
    return Reporter(console, quiet=quiet or not console.is_terminal)


def silent() -> Reporter:
    """For tests and libraries."""
    return Reporter(Console(quiet=True), quiet=True)


_RUNNING: ContextVar[Reporter | None] = ContextVar("running", default=None)


def running() -> Reporter:
    """Who tells what is going on here; silent outside of `Reporter.running`."""
    return _RUNNING.get() or silent()


class Owed(Exception):
    """Raised by `Dry` where there is work to do."""


class Dry(Reporter):
    """For `--dry-run`: whoever says that there is work, or would show a bar of it, is stopped there."""

    def owes(self, what: str) -> None:
        """As of `Reporter`. Raises `Owed`."""
        raise Owed(what)

    @contextmanager
    def bar(self, label: str, total: int, unit: str = "items", about: str | None = None) -> Iterator[Bar]:
        """As of `Reporter`. Raises `Owed` where there is work."""
        if total:
            self.owes(f"{label}: {counted(total, unit)}")
        with super().bar(label, total, unit, about) as bar:
            yield bar


def dry() -> Dry:
    """A reporter that stops work before it begins."""
    return Dry(Console(quiet=True), quiet=True)
