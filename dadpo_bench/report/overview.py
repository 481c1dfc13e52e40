"""The first page: what was compared, by whom it was judged, the board, and which differences are proven, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dadpo_bench.leaderboard import number
from dadpo_bench.leaderboard.columns import CANARY, LOOKS, SCORES, chance
from dadpo_bench.leaderboard.facts import Cells
from dadpo_bench.leaderboard.sections import Section, proven, telling
from dadpo_bench.report.charts import Chart, Estimate, Shares, forest, pairs, shares
from dadpo_bench.report.judges import alike_longer
from dadpo_bench.report.tables import table

if TYPE_CHECKING:
    from dadpo_bench.report.methods import MethodPage


def context(sections: Sequence[Section], pages: Mapping[str, MethodPage]) -> dict[str, Any]:
    """What its template shows; `pages` are those of contestants that were trained, by path."""
    boards = []
    for section in sections:
        own = [(path, page.label) for path, page in pages.items() if page.protocol == section.protocol_key]
        boards.append({**_board(section), "methods": own})
    return {"boards": boards}


def _board(section: Section) -> dict[str, Any]:
    whole = [row for row in section.board_rows if row["category"] is None]
    return {
        "name": section.recipe,
        "judge": section.judge,
        "proxy": section.proxy,
        "facts": section.facts,
        "warnings": section.warnings,
        "charts": list(_charts(section, whole)),
        "tasks": [
            {
                "name": task,
                "domain": domain,
                "board": table(SCORES, [row for row in whole if row["task"] == task]),
                "categories": table(
                    SCORES, [r for r in section.board_rows if r["task"] == task and r["category"] is not None]
                ),
                "words": _words(section, task),
                "longer": next((alike_longer(p) for p in section.panels if p.task.name == task), None),
            }
            for task, domain in section.domains.items()
        ],
        "looks": table(LOOKS, whole),
        "canaries": table(CANARY, [row for row in section.canary_rows if row["category"] is None]),
    }


def _charts(section: Section, rows: Sequence[Cells]) -> list[Chart]:
    judged = [row for row in rows if row["win_rate"] is not None]
    tasks = [(task, f"{task} ({domain})") for task, domain in section.domains.items()]

    def by_task(given: Sequence[Cells]) -> list[tuple[str, list[Cells]]]:
        order = {name: at for at, name in enumerate(dict.fromkeys(row["contestant"] for row in given))}
        found = [(title, [row for row in given if row["task"] == task]) for task, title in tasks]
        return [(title, sorted(here, key=lambda r: order[r["contestant"]])) for title, here in found if here]

    made: list[Chart] = []
    if judged:
        estimates = [
            (title, [Estimate(r["contestant"], r["win_rate"], r["ci_low"], r["ci_high"]) for r in here])
            for title, here in by_task(judged)
        ]
        made.append(forest("Win rate against the baseline, 95 % interval", estimates, "%", even=50))
        parts = [
            (title, [Shares(r["contestant"], r["win_share"], r["tie_share"], r["loss_share"]) for r in here])
            for title, here in by_task(judged)
        ]
        made.append(shares("Prompts won, tied and lost", parts))
    controlled = [row for row in judged if row["length_controlled_win_rate"] is not None]
    if controlled:
        sides = [
            (
                title,
                [Estimate(r["contestant"], r["win_rate"]) for r in here],
                [Estimate(r["contestant"], r["length_controlled_win_rate"]) for r in here],
            )
            for title, here in by_task(controlled)
        ]
        made.append(pairs("Win rate, as it is and length-controlled", sides, "as it is", "length-controlled"))
    rated = [row for row in rows if row["single_score"] is not None]
    if rated:
        scores = [
            (title, [Estimate(r["contestant"], r["single_score"], r["single_low"], r["single_high"]) for r in here])
            for title, here in by_task(rated)
        ]
        made.append(forest("Mean rating of single answers", scores, "the judge's own unit"))
    return made


def _words(section: Section, task: str) -> dict[str, list[str]]:
    told, every = telling(section, task)
    found: dict[str, list[str]] = {"proven": [], "open": [], "left": []}
    for difference in told:
        found["proven" if proven(difference) else "open"].append(_in_words(difference))
    if len(told) < every:
        found["left"].append(f"Of {every} pairs those of the first contestant and of neighbours are told.")
    return found


def _in_words(difference: Cells) -> str:
    rated = difference["measure"] == "rating"
    digits, unit = (2, "") if rated else (1, " points")
    first, second, estimate = difference["first"], difference["second"], difference["estimate"]
    low, high = difference["low"], difference["high"]
    prompts = f"{difference['prompts']:,} prompts"
    if not proven(difference):
        between = f"{number(low, digits, sign=True)} to {number(high, digits, sign=True)}{unit}"
        return f"{first} and {second} cannot be told apart with {prompts}: 95 % interval of the difference {between}."
    if estimate < 0:
        first, second, estimate, low, high = second, first, -estimate, -high, -low
    return (
        f"{first} is better than {second} by {number(estimate, digits)}{unit} "
        f"({number(low, digits)} to {number(high, digits)}; p (Holm) {chance(difference['p_holm'])}, {prompts})."
    )
