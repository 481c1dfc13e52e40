"""The board: stored judgments as rows and as Markdown."""

from dadpo_bench.leaderboard.columns import number
from dadpo_bench.leaderboard.markdown import escape, render, table, write_board, write_board_of
from dadpo_bench.leaderboard.sections import EVERYTHING, Section, View, sections

__all__ = [
    "EVERYTHING",
    "Section",
    "View",
    "escape",
    "number",
    "render",
    "sections",
    "table",
    "write_board",
    "write_board_of",
]
