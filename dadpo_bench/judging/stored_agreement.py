"""How far the judges of a store agree on what several of them judged: shares and Cohen's κ, with and without ties."""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from dadpo_bench.judging.judgments import told_apart
from dadpo_bench.panels import panels
from dadpo_bench.scoring import agreement
from dadpo_bench.store import schema, scored_boards

_Cell = tuple[str, str, str, str]
"""Keys of task, contestant, prompt, and of the contestant it is compared with; empty for the baseline."""


class Agreement(NamedTuple):
    """Two judges on the comparisons that both scored; a comparison is its mean over orders, its side of ½ counts.

    Where responses are only rated, two contestants' ratings on a prompt are a comparison.
    """

    board: str
    first: str
    second: str
    comparisons: int
    agreement: agreement.Share
    agreement_without_ties: agreement.Share | None
    """Of those in which neither says tie."""
    cohen_kappa: float | None
    cohen_kappa_without_ties: float | None

    def as_data(self) -> dict[str, Any]:
        """For machines."""
        without = self.agreement_without_ties
        shares = {
            "agreement": self.agreement._asdict(),
            "agreement_without_ties": without._asdict() if without else None,
        }
        return {**self._asdict(), **shares}


def stored_agreement(session: Session) -> list[Agreement]:
    """Every two judges of every board, canaries left out, on which it is easy to agree."""
    boards: dict[str, tuple[schema.Protocol, list[schema.Judge]]] = {}
    for protocol, judge in scored_boards(session):
        boards.setdefault(protocol.key, (protocol, []))[1].append(judge)
    found = []
    for protocol, judges in boards.values():
        if len(judges) < 2:
            continue
        said = [_said(session, protocol.key, judge.key) for judge in judges]
        names = told_apart(judges)
        for one, other in combinations(range(len(judges)), 2):
            if agreed := _agreement(protocol.name, names[one], names[other], said[one], said[other]):
                found.append(agreed)
    return found


def _said(session: Session, protocol_key: str, judge_key: str) -> dict[_Cell, float]:
    outcomes: dict[_Cell, float] = {}
    for panel in panels(session, protocol_key, judge_key):
        rows = {
            contestant.key: row
            for entrant in panel.contestants
            for contestant, row in zip(entrant.contestants, panel.standing(entrant), strict=True)
        }
        if panel.rated_alone:  # who was rated higher is what two judges can agree on
            compared = {
                (one, other): 0.5 + 0.5 * np.sign(rows[one] - rows[other]) for one, other in combinations(rows, 2)
            }
        else:
            compared = {(contestant, ""): row for contestant, row in rows.items()}
        for (contestant, other), row in compared.items():
            for prompt, outcome in zip(panel.prompts, row, strict=True):
                if not np.isnan(outcome):
                    outcomes[panel.task.key, contestant, prompt, other] = float(outcome)
    return outcomes


def _agreement(
    board: str, first: str, second: str, ours: dict[_Cell, float], theirs: dict[_Cell, float]
) -> Agreement | None:
    cells = [cell for cell in ours if cell in theirs]
    one, other = (np.array([said[cell] for cell in cells]) for said in (ours, theirs))
    prompts = [prompt for _, _, prompt, _ in cells]
    whole = agreement.agreement(one, other, prompts=prompts)
    if whole is None:
        return None
    decided = (one != 0.5) & (other != 0.5)
    return Agreement(
        board,
        first,
        second,
        len(cells),
        whole,
        agreement.agreement(one, other, prompts=prompts, ties=False),
        agreement.cohen_kappa(one, other),
        agreement.cohen_kappa(one[decided], other[decided]),
    )
