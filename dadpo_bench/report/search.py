"""Full-text search over prompts, responses and judges' words: SQLite's FTS5, in memory, whatever the store is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dadpo_bench.report.comparisons import Comparison
from dadpo_bench.store import schema
from dadpo_bench.store.rows import chunks

MOST = 5_000
"""Comparisons that one search gives."""


class Search:
    """An index of the texts behind some comparisons."""

    def __init__(self, session: Session, comparisons: Sequence[Comparison]) -> None:
        self._comparisons = comparisons
        # Built and asked by whichever thread serves a request, one at a time.
        self._index = sqlite3.connect(":memory:", check_same_thread=False)
        self._index.execute("CREATE VIRTUAL TABLE texts USING fts5(kind UNINDEXED, key UNINDEXED, text)")
        self._index.executemany("INSERT INTO texts VALUES (?, ?, ?)", _texts(session, comparisons))

    def found(self, query: str) -> list[str]:
        """Keys of the comparisons whose texts hold every word of the query, the last one as a beginning.

        Each word may stand in another text of the comparison.
        """
        words = query.split()
        if not words:
            return []
        matching: set[str] | None = None
        for place, word in enumerate(words):
            here = self._with(word, beginning=place == len(words) - 1)
            matching = here if matching is None else matching & here
        return [c.key for c in self._comparisons if c.key in (matching or ())][:MOST]

    def _with(self, word: str, *, beginning: bool) -> set[str]:
        phrase = '"' + word.replace('"', '""') + '"' + ("*" if beginning else "")
        hits: dict[str, set[str]] = {"prompt": set(), "response": set(), "said": set()}
        try:
            for kind, key in self._index.execute("SELECT kind, key FROM texts WHERE texts MATCH ?", (phrase,)):
                hits[kind].add(key)
        except sqlite3.OperationalError:  # a word of signs alone
            return set()
        prompts, responses, said = hits.values()
        return {
            c.key
            for c in self._comparisons
            if c.prompt_key in prompts or c.ours in responses or c.theirs in responses or c.key in said
        }


def _texts(session: Session, comparisons: Sequence[Comparison]) -> Iterator[tuple[str, str, str]]:
    for some in chunks(sorted({c.prompt_key for c in comparisons})):
        for prompt in session.scalars(select(schema.Prompt).where(schema.Prompt.key.in_(some))):
            yield "prompt", prompt.key, "\n".join([prompt.system, *map(str, prompt.turns)])
    for some in chunks(sorted({key for c in comparisons for key in (c.ours, c.theirs) if key})):
        for response in session.scalars(select(schema.Response).where(schema.Response.key.in_(some))):
            yield "response", response.key, "\n".join(str(reply["text"]) for reply in response.replies)
    by_pair = {(c.judge_key, c.ours, c.theirs): c.key for c in comparisons}
    row: Any = schema.Verdict
    for judge in sorted({c.judge_key for c in comparisons}):
        query = select(row.contestant_response, row.baseline_response, row.raw).where(
            row.judge_key == judge, row.raw != ""
        )
        for ours, theirs, raw in session.execute(query):
            if key := by_pair.get((judge, ours, theirs)):
                yield "said", key, raw
    of_response: dict[tuple[str, str], list[str]] = {}
    for c in comparisons:
        of_response.setdefault((c.judge_key, c.ours), []).append(c.key)
    for judge in sorted({c.judge_key for c in comparisons}):
        rated = select(schema.Rating.response_key, schema.Rating.raw).where(
            schema.Rating.judge_key == judge, schema.Rating.raw != ""
        )
        for rated_response, raw in session.execute(rated):
            for key in of_response.get((judge, rated_response), ()):
                yield "said", key, raw
