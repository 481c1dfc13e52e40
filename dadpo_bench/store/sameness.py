"""What two rows of one key must share where stores made apart are merged, table by table, and why.

A key says what something is, so equal keys promise equal values: where they differ, one store is wrong about it, or the
same work came out otherwise on another machine, and only a person can choose. What is in no `compared` may differ: what
merely tells when, where and how fast a thing was made, and what people call it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dadpo_bench.store import schema
from dadpo_bench.types import Outcome

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sameness:
    """What makes rows of a table the same."""

    table: type[schema.Base]
    compared: tuple[str, ...]
    """Columns that must be equal."""
    why: str
    noise: Callable[[Row, str], float] | None = None
    """How far numbers of a compared column may be apart, by the row and the column; not at all where left out."""
    settled: Callable[[Row], bool] | None = None
    """Whether a row says something: one that does takes the place of one that does not, and differs from none."""

    def differing(self, held: Row, brought: Row) -> tuple[str, ...]:
        """Columns in which two rows of one key contradict each other."""
        if self.settled and not (self.settled(held) and self.settled(brought)):
            return ()
        return tuple(name for name in self.compared if not self._equal(held, brought, name))

    def improves(self, held: Row, brought: Row) -> bool:
        """Whether the row that is brought takes the other's place."""
        return bool(self.settled and self.settled(brought) and not self.settled(held))

    def _equal(self, held: Row, brought: Row, name: str) -> bool:
        ours, theirs = held[name], brought[name]
        if ours == theirs:
            return True
        return self.noise is not None and isinstance(ours, float) and abs(ours - theirs) <= self.noise(held, name)


def _rounding(row: Row, _: str) -> float:
    """As the pre-flight allows for: bf16 moves with the batch's shape, by up to 0.05 nats a token."""
    return float((1e-3 if row["precision"].endswith("float32") else 0.05) * row["tokens"])


def _kl_noise(row: Row, _: str) -> float:
    """Half a hundredth of a nat a token: boards show hundredths."""
    return 5e-3 * float(row.get("tokens", 1))


def _said(row: Row) -> bool:
    return row["outcome"] != Outcome.unscored if "outcome" in row else row["value"] is not None


_ASKED_AGAIN = (
    "the judge's words and what was read from them; a failure is asked again by the next run, so an answer takes its "
    "place. When it was asked, tokens, seconds and which build answered may differ"
)

SAMENESS = (
    Sameness(
        schema.Protocol, (), "the key is of all that counts; files, models and the recipe may be called otherwise"
    ),
    Sameness(schema.Model, ("parameters",), "the key is of the weights; directories may be called otherwise"),
    Sameness(schema.Prompt, ("turns", "system", "reference", "checklist"), "the key is of all of these"),
    Sameness(schema.Task, ("name", "domain", "split"), "the domain is no part of the key, and boards are read by it"),
    Sameness(
        schema.TaskPrompt,
        ("prompt_key", "category"),
        "boards are split by category; one that is known takes the place of none. Ids are labels",
        settled=lambda row: bool(row["category"]),
    ),
    Sameness(schema.Judge, ("kind", "proxy"), "the key is of its identity; it keeps the name it was first asked by"),
    Sameness(
        schema.Derivation,
        ("kind", "model_key"),
        "the same training must give the same weights; its seconds and what was measured on the way may differ",
    ),
    Sameness(
        schema.Response,
        ("model_key", "prompt_key", "replies"),
        "verdicts are about the words; seconds may differ, and what they look like is computed from them",
    ),
    Sameness(
        schema.Signal,
        ("total", "tokens"),
        "a model scores the same tokens alike but for rounding, and each training's key holds the signals it used",
        noise=_rounding,
    ),
    Sameness(schema.Divergence, ("nats", "tokens"), "measured on the same samples: alike but for rounding", _kl_noise),
    Sameness(schema.Contestant, ("model_key",), "one seed and its settings are one set of weights, or one author"),
    Sameness(schema.Answer, ("response_key",), "one contestant gave one answer"),
    Sameness(
        schema.ContestantDivergence, ("from_teacher", "to_teacher"), "as the divergences they are made of", _kl_noise
    ),
    Sameness(schema.Rating, ("value", "by_turn", "raw"), _ASKED_AGAIN, settled=_said),
    Sameness(schema.Verdict, ("outcome", "preference", "raw"), _ASKED_AGAIN, settled=_said),
)
"""Every table whose rows are merged by key, those that others refer to first. The rest have rules of their own:

`metrics`: a training's steps are one curve and come from one store whole, who finished it, else who came further; what
they led to is compared, the weights. `judge_evaluations`: the later one, as `judge-eval` itself replaces the earlier.
`runs` and `stage_times` are numbered anew. `scores` are computed again. `activities` end with their run.
"""
