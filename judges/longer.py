"""The null judge: a response's rating is its length, so the longer of two wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dadpo_bench.types import JsonObject, JudgeContext, Rating, Response


class Longer:
    """Rates a response by the characters of `Response.text`, the board's `mean_length`. No settings."""

    def __init__(self, _config: object, _context: JudgeContext) -> None: ...

    def identity(self) -> JsonObject:
        """Nothing but the name and the version decides a rating."""
        return {"judge": "longer", "version": 1}

    def rate(self, responses: Sequence[Response]) -> Iterator[tuple[int, Rating]]:
        """Yield every rating at once, in order; unit: characters (code points)."""
        for index, response in enumerate(responses):
            yield index, Rating(value=float(len(response.text)))
