"""Tables for a terminal: where it is too narrow for the figures, rows become blocks, and nothing is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

_UNBOUNDED = 10_000
_EMPTY = ("", "–")


def print_table(console: Console, table: Table) -> None:
    """Print a table of text whose first column names the row, figures in columns that do not wrap.

    As a block a row is its name, and below it each cell behind its column's header.
    """
    if _least_width(console, table) <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title, highlight=False)
    _, *others = table.columns
    cells = zip(*(column.cells for column in table.columns), strict=True)
    for row, (first, *values) in zip(table.rows, cells, strict=True):
        console.print(first, style=row.style, highlight=False)
        parts = [f"{_plain(c.header)}: {v}" for c, v in zip(others, values, strict=True) if v not in _EMPTY]
        for line in _packed(parts, console.width - 2):
            console.print(f"  {line}", style=row.style, highlight=False, soft_wrap=True)


def _least_width(console: Console, table: Table) -> int:
    """Of all columns, figures whole and other text broken at its blanks, with borders and padding."""
    _, right, _, left = table.padding
    return sum(_column_width(console, column) + left + right + 1 for column in table.columns) + 1


def _column_width(console: Console, column: Column) -> int:
    options = console.options.update(max_width=_UNBOUNDED)
    cells = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    return max(cell.maximum if column.no_wrap else cell.minimum for cell in cells)


def _plain(header: object) -> str:
    """A header without the breaks that make its column narrow."""
    return str(header).replace("-\n", "").replace("\n", " ")


def _packed(parts: Iterable[str], width: int) -> Iterator[str]:
    """Lines of at most `width` of as many parts as fit; one that alone is longer has its own."""
    line = ""
    for part in parts:
        if line and cell_len(f"{line}; {part};") > width:
            yield f"{line};"
            line = part
        else:
            line = f"{line}; {part}" if line else part
    if line:
        yield line


def printable(text: str, limit: int = 200) -> str:
    """Somebody else's text on one line of at most so many characters, none of which a terminal would obey."""
    shown = "".join(c if c.isprintable() else "�" for c in text[: limit + 1])
    return f"{shown[:limit]}…" if len(shown) > limit else shown
