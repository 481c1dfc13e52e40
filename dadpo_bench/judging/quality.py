"""How a judge does on labelled pairs: does it agree with people, and with itself?

All it is asked goes through the store, so an interrupted evaluation goes on, and another run pays nothing; but for the
retest, which is asked anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import func, select

from dadpo_bench import scoring
from dadpo_bench.judging.asked import accord_of_members, keep_responses, length, longer, orders_of_matches, unscored_in
from dadpo_bench.judging.comparisons import BOTH, Match, OpenJudge, ask, tell_unscored
from dadpo_bench.judging.keeping import answers
from dadpo_bench.judging.labelled import LabelledSet
from dadpo_bench.scoring import agreement
from dadpo_bench.scoring.outcomes import Floats
from dadpo_bench.stages.bench import Bench
from dadpo_bench.stages.responses import Stored
from dadpo_bench.store import schema
from dadpo_bench.store.rows import response_row
from dadpo_bench.types import Comparison, JsonObject, PairwiseJudge, PointwiseJudge, Response, content_key

_GIVEN = "given"
"""In a model's place where a file holds the response."""

_LIST = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)])[ \t]", re.MULTILINE)


def measure(
    bench: Bench,
    judge: OpenJudge,
    labelled: LabelledSet,
    *,
    against: OpenJudge | None = None,
    retest: int = 0,
) -> JsonObject:
    """How a judge does on labelled pairs: agreement, biases, cost. `retest` pairs are asked once more, unstored."""
    matches = [(_stored(p.first), _stored(p.second)) for p in labelled.pairs]
    given = {stored.key: stored for match in matches for stored in match}
    rows = [response_row(*stored, _GIVEN, content_key(_GIVEN)) for stored in given.values()]
    keep_responses(bench, [stored.response.prompt for stored in given.values()], rows)
    tell_unscored(bench, ask(bench, judge, matches, f"{judge.name}: {labelled.name}"))
    orders = orders_of_matches(bench, judge, matches)
    verdicts = scoring.prompt_outcomes(orders)
    missing, half = unscored_in(orders)
    widest = max(len(p.labels) for p in labelled.pairs)
    labels = np.array([[*p.labels, *[np.nan] * (widest - len(p.labels))] for p in labelled.pairs]).T
    pairs = [(p.first, p.second) for p in labelled.pairs]
    lengths, lists = (np.array([[trait(r) for r in both] for both in pairs]).T for trait in (length, _has_list))
    most = agreement.majority(labels)
    # Of a conversation judged after each turn, and of many models' answers to it, there is one prompt.
    agree = partial(agreement.agreement, prompts=[p.first.prompt.turns[0] for p in labelled.pairs])
    found: dict[str, Any] = {
        "set": labelled.name,
        "format": labelled.format,
        "pairs": len(labelled.pairs),
        "unscored": missing,
        "half_scored": half,
        "agreement": _shown(agree(verdicts, labels)),
        "agreement_without_ties": _shown(agree(verdicts, labels, ties=False)),
        "between_annotators": agreement.between_annotators(labels),
        "between_annotators_without_ties": agreement.between_annotators(labels, ties=False),
        "cohen_kappa": agreement.cohen_kappa(verdicts, most),
        "krippendorff_alpha": agreement.krippendorff_alpha(np.vstack([verdicts, labels])),
        "krippendorff_alpha_of_labels": agreement.krippendorff_alpha(labels) if widest > 1 else None,
        "flip_rate": scoring.flip_rate(orders),
        "first_shown": agreement.first_shown_share(orders),
        "prefers_longer": agreement.preferred_share(verdicts, *lengths),
        "labels_prefer_longer": agreement.preferred_share(labels, *lengths),
        "prefers_list": agreement.preferred_share(verdicts, *lists),
        "labels_prefer_list": agreement.preferred_share(labels, *lists),
        "like_longer": _shown(agree(verdicts, longer(pairs), ties=False)),
        **_cost(bench, judge, matches),
    }
    if accord := accord_of_members(bench, judge, matches):
        found["members_agree"] = accord.as_data()
    if retest:
        found["retest"] = _shown(_ask_again(bench, judge, matches[:retest], orders[:retest]))
    if against:
        tell_unscored(bench, ask(bench, against, matches, f"{against.name}: {labelled.name}"))
        other = scoring.prompt_outcomes(orders_of_matches(bench, against, matches))
        found["against"] = {
            "judge": against.name,
            "agreement": _shown(agree(verdicts, other)),
            "agreement_without_ties": _shown(agree(verdicts, other, ties=False)),
            "cohen_kappa": agreement.cohen_kappa(verdicts, other),
            "its_agreement_with_labels": _shown(agree(other, labels)),
        }
    return found


def _stored(response: Response) -> Stored:
    texts = [reply.text for reply in response.replies]
    return Stored(content_key(_GIVEN, response.prompt.key, texts), response)


def _cost(bench: Bench, judge: OpenJudge, matches: Sequence[Match]) -> dict[str, Any]:
    """Tokens, USD and seconds of 1,000 judgments; null where no call was counted, USD where no price is known.

    Of a panel 1,000 of every member's.
    """
    if judge.members:
        costs = [_cost(bench, member, matches) for member in judge.members]
        counted = [cost for cost in costs if cost["tokens_per_1000"] is not None] or costs[:1]
        return {name: None if None in (c := [cost[name] for cost in counted]) else sum(c) for name in costs[0]}
    pointwise = judge.entry.kind == "pointwise"
    table: Any = schema.Rating if pointwise else schema.Verdict
    which = table.response_key if pointwise else table.contestant_response
    keys = list({stored.key for match in matches for stored in (match if pointwise else match[:1])})
    total = np.zeros(4)
    with bench.store.read() as session:
        for start in range(0, len(keys), 500):
            query = select(
                func.count(), func.sum(table.tokens), func.sum(table.answer_tokens), func.sum(table.seconds)
            ).where(table.judge_key == judge.key, which.in_(keys[start : start + 500]), table.tokens > 0)
            total += [value or 0 for value in session.execute(query).one()]
    names = ("tokens_per_1000", "answer_tokens_per_1000", "seconds_per_1000")
    if not total[0]:
        return dict.fromkeys((*names, "usd_per_1000"))
    found = {name: 1000 * float(value / total[0]) for name, value in zip(names, total[1:], strict=True)}
    tokens, answered, _ = found.values()
    usd = judge.judge.usd(tokens - answered, answered) if hasattr(judge.judge, "usd") else None
    return {**found, "usd_per_1000": usd}


def _ask_again(bench: Bench, judge: OpenJudge, matches: Sequence[Match], orders: Floats) -> agreement.Share | None:
    """Test and retest: the same questions a second time, order by order."""
    again = np.full_like(orders, np.nan)
    if hasattr(judge.judge, "anew"):
        judge.judge.anew()
    if judge.entry.kind == "pointwise":
        responses = [stored.response for match in matches for stored in match]
        values = np.full(len(responses), np.nan)
        pointwise: PointwiseJudge = judge.judge
        with closing(answers(bench.engine, pointwise, pointwise.rate, responses)) as ratings:
            for index, rating in ratings:
                values[index] = np.nan if rating.value is None else rating.value
        again[:, 0] = 0.5 + 0.5 * np.sign(values[0::2] - values[1::2])
    else:
        asked = [Comparison(contestant=a.response, baseline=b.response, order=o) for a, b in matches for o in BOTH]
        pairwise: PairwiseJudge = judge.judge
        with closing(answers(bench.engine, pairwise, pairwise.judge, asked)) as verdicts:
            for index, verdict in verdicts:
                again[divmod(index, len(BOTH))] = np.nan if verdict.worth is None else verdict.worth
    return agreement.agreement(again.T, orders.T, prompts=[ours.response.prompt.turns[0] for ours, _ in matches])


def _shown(share: agreement.Share | None) -> dict[str, Any] | None:
    return share._asdict() if share else None


def _has_list(response: Response) -> float:
    return float(_LIST.search(response.text) is not None)
