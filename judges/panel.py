"""Several judges in one's place: what most of them say, or what they say on average.

Verga et al. 2024, "Replacing Judges with Juries" (arXiv 2404.18796), found panels of small models of several families
to agree better with people than one large model does, with less bias for their own kin. The bench asks the members and
keeps what each says; the panel's verdict follows from that.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.judging.comparisons import check_judge, construct_judge
from dadpo_bench.types import Comparison, JsonObject, JudgeContext, Member, Outcome, Value, Verdict
from judges.verdicts import outcome

VERSION = 1
"""Raise it when a change here moves verdicts."""

_LONGEST_REASON = 200
"""Characters of a reason that the store keeps."""


class Seat(Value):
    """A judge on a panel, as `--judge` and a recipe name it."""

    judge: str = Field(description="`NAME` or `NAME:ARGUMENT`.")
    settings: dict[str, Any] = Field({}, description="Of that judge.")

    @model_validator(mode="after")
    def _by_its_argument(self) -> Seat:
        """Named as on the command line: `chat:gpt-4o`, wherever the model was given."""
        base, colon, _ = self.judge.partition(":")
        argument = registry.judges[base].argument
        if colon or not self.settings.get(argument):
            return self
        settings = {name: value for name, value in self.settings.items() if name != argument}
        return Seat(judge=f"{base}:{self.settings[argument]}", settings=settings)


class PanelConfig(Value):
    """Settings of the judge `panel`."""

    members: tuple[Seat, ...] = Field(
        description="Judges: `pmi+longer+chat:gpt-4o`, or a list of such names and of {judge: NAME, settings: {…}}. "
        "What limits or shapes a member's work (template, concurrency, budget_usd, …) is its own setting.",
    )
    combine: Literal["majority", "mean"] = Field(
        "majority",
        description="majority: the outcome that most members gave, a tie where none has the most. mean: the mean of "
        "their preferences (1 a win, 0.5 a tie, 0 a loss, or a graded judge's own).",
    )

    @model_validator(mode="before")
    @classmethod
    def _says_whose_setting_it_is(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields and not difflib.get_close_matches(name, cls.model_fields):
                raise UserError(
                    f"judge panel has no {name} of its own: set it in a member's settings, "
                    f"judge_settings: {{members: [{{judge: NAME, settings: {{{name}: …}}}}, …]}}"
                )
        return values

    @field_validator("members", mode="before")
    @classmethod
    def _in_short(cls, given: Any) -> Any:
        named = given.split("+") if isinstance(given, str) else given
        return [{"judge": one} if isinstance(one, str) else one for one in named] if isinstance(named, list) else named

    @field_validator("members")
    @classmethod
    def _are_judges(cls, seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
        if len(seats) < 2:
            raise ValueError("name at least two judges, e.g. pmi+longer")
        known = []
        for seat in seats:
            if seat.judge.partition(":")[0] == "panel":
                raise UserError("a panel cannot sit on a panel: name its members instead")
            entry, config = check_judge(seat.judge, seat.settings)
            known.append((entry.name, config.model_dump() if config else {}))
            if known.count(known[-1]) > 1:
                raise UserError(f"judge '{seat.judge}' is twice on the panel: leave one out, or give it other settings")
        return seats


class Panel:
    """A verdict for each ordered pair, made of its members'.

    Pointwise members rate both responses: their verdict is the same in either order. A comparison is unscored while
    a member has none, with that member's name and reason.

    Raises `UserError` where a member cannot be asked, e.g. without its API key.
    """

    def __init__(self, config: PanelConfig, context: JudgeContext) -> None:
        self._combine = config.combine
        self.members = tuple(_member(seat, context) for seat in config.members)

    def identity(self) -> JsonObject:
        """How the members' verdicts are combined; who they are is added by the bench, in no order."""
        return {"judge": "panel", "version": VERSION, "combine": self._combine}

    def judge(self, comparisons: Sequence[Comparison]) -> Generator[tuple[int, Verdict], None, None]:
        """Ask every member, keep nothing, and combine: for a second opinion that no store is to know."""
        said = [_said(member, comparisons) for member in self.members]
        yield from enumerate(self.verdict(verdicts) for verdicts in zip(*said, strict=True))

    def anew(self) -> None:
        """From here on, no answer counts that a member's server still holds of an earlier run."""
        for member in self.members:
            if hasattr(member.judge, "anew"):
                member.judge.anew()

    def verdict(self, said: Sequence[Verdict]) -> Verdict:
        """Of one ordered pair, from the members' verdicts in the order of `members`."""
        named = list(zip((member.name for member in self.members), said, strict=True))
        raw = json.dumps([[name, _words(v)] for name, v in named], ensure_ascii=False, separators=(",", ":"))
        worths = [verdict.worth for verdict in said if verdict.worth is not None]
        if len(worths) < len(said):
            missing = [f"{name}: {v.reason}" for name, v in named if v.outcome is Outcome.unscored]
            return Verdict(outcome=Outcome.unscored, reason="; ".join(missing)[:_LONGEST_REASON], raw=raw)
        if self._combine == "mean":
            preference = fmean(worths)
            return Verdict(outcome=outcome(preference), preference=preference, raw=raw)
        return Verdict(outcome=_majority([verdict.outcome for verdict in said]), raw=raw)


def _member(seat: Seat, context: JudgeContext) -> Member:
    try:
        return Member(seat.judge, *construct_judge(seat.judge, seat.settings, context))
    except UserError as error:
        raise UserError(f"member {seat.judge} of the panel: {error}") from error


def _words(verdict: Verdict) -> str | float:
    return str(verdict.outcome) if verdict.preference is None else verdict.preference


def _majority(outcomes: Sequence[Outcome]) -> Outcome:
    (first, most), *others = Counter(outcomes).most_common()
    return Outcome.tie if others and others[0][1] == most else first


def _said(member: Member, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """What a member says now, in the order of the comparisons."""
    if member.entry.kind == "pairwise":
        with closing(member.judge.judge(comparisons)) as verdicts:
            found = dict(verdicts)
        return [found[index] for index in range(len(comparisons))]
    responses = list(dict.fromkeys(response for c in comparisons for response in (c.contestant, c.baseline)))
    ratings = {responses[index]: rating for index, rating in member.judge.rate(responses)}
    return [ratings[c.contestant].against(ratings[c.baseline]) for c in comparisons]
