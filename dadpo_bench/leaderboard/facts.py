"""What stands above a board's tables: where its figures come from, and what weakens them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.counts import counted
from dadpo_bench.families import families
from dadpo_bench.judging.evaluations import cited
from dadpo_bench.judging.judgments import told_apart
from dadpo_bench.open_board import is_open
from dadpo_bench.panels import Panel
from dadpo_bench.recipe import FIRST
from dadpo_bench.store import schema

Cells = dict[str, Any]


def members(judged: Sequence[Panel]) -> list[schema.Judge]:
    """Who decides together; none where one judge does alone."""
    return [member for member, _ in judged[0].members] if judged else []


def domain_in_words(domain: str) -> str:
    """As the field says it."""
    return {"in": "in-domain", "out": "out-of-domain"}.get(domain, domain)


def facts(session: Session, protocol: schema.Protocol, judge: schema.Judge, judged: Sequence[Panel]) -> list[str]:
    runs = session.scalars(
        select(schema.Run).where(schema.Run.protocol_key == protocol.key).order_by(schema.Run.started)
    ).all()
    counts = []
    for task in (panel.task for panel in judged):
        number_of = session.scalar(
            select(func.count()).select_from(schema.TaskPrompt).where(schema.TaskPrompt.task_key == task.key)
        )
        counts.append(f"{task.name} ({domain_in_words(task.domain)}, {counted(number_of or 0, 'prompts')})")
    found = [
        *_origin(protocol),
        f"tasks: {'; '.join(counts)}",
        f"judge: {judge.name}" + (", a proxy: its numbers are no judgment of preference" if judge.proxy else ""),
        *_template(judge),
        *_membership(judge, judged),
        *_compared_with(protocol, judged),
    ]
    evaluations = select(schema.JudgeEvaluation).where(schema.JudgeEvaluation.judge_key == judge.key)
    found += cited(session.scalars(evaluations))
    contestants = [(panel, e) for panel in judged for e in panel.contestants]
    seats = members(judged)
    sees_orders = judge.kind == "pairwise" if not seats else any(member.kind == "pairwise" for member in seats)
    if sees_orders and all(panel.orders(e).shape[-1] == 1 for panel, e in contestants):
        found.append("orders: one for each pair, so the judge's position bias is not known")
    if runs:
        first, last = (r.started.date().isoformat() for r in (runs[0], runs[-1]))
        machine = runs[-1].environment
        found += [
            f"run: {first}" + (f" to {last}" if last != first else ""),
            f"computed in {machine['precision']} (weights/arithmetic) on {machine['device']}, "
            f"torch {machine['versions']['torch']}, transformers {machine['versions']['transformers']}"
            + (f", code {str(machine['code'])[:12]}" if machine.get("code") else ""),
            *_parity(runs),
        ]
    return found


def _parity(runs: Sequence[schema.Run]) -> list[str]:
    """How far a served teacher's log-probs differed from themselves, and from local weights, in the last run that
    asked for some.
    """
    checked: list[Cells] = next(
        (run.environment["parity"] for run in reversed(runs) if run.environment.get("parity")), []
    )
    kinds = {"again": "in another order", "servers": "between servers", "weights": "from local weights"}
    worst = {
        kind: max((float(found["mean"]) for found in checked if found.get("kind") == kind), default=None)
        for kind in kinds
    }
    told = [f"{mean:.4f} {kinds[kind]}" for kind, mean in worst.items() if mean is not None]
    return [f"the teacher's log-probs, nats a token: {', '.join(told)}"] if told else []


def _template(judge: schema.Judge) -> list[str]:
    sha256 = judge.identity.get("template")
    return [f"judge prompt: sha256 {sha256[:16]}…"] if isinstance(sha256, str) else []


def _origin(protocol: schema.Protocol) -> list[str]:
    """Who was taught by whom; of an open board nobody was."""
    settings = protocol.settings
    if is_open(settings):
        return ["contestants: as they were imported or evaluated; nobody was trained here"]
    teacher = _shown(settings["teacher"]["model"])
    if protocol_of := settings["teacher"].get("protocol"):
        teacher += f", known by its name at an endpoint ({protocol_of}): which weights answered is not verified"
    student = _shown(settings["student"].get("model") or settings["teacher"]["model"])
    if pruning := settings["student"].get("prune"):
        groups = f", key-value groups a layer: −{pruning['groups']}" if pruning.get("groups") else ""
        student += f", pruned by {100 * pruning['ratio']:.0f} % ({pruning['importance']}{groups})"
    return [f"teacher: {teacher}", f"student: {student}"]


def _compared_with(protocol: schema.Protocol, judged: Sequence[Panel]) -> list[str]:
    if not is_open(protocol.settings):
        return ["baseline: the teacher's response to the same prompt"]
    names = dict.fromkeys(panel.baseline.name for panel in judged if panel.baseline)
    return [f"baseline: {', '.join(names)}"] if names else ["baseline: none; responses are rated one by one"]


def _membership(judge: schema.Judge, judged: Sequence[Panel]) -> list[str]:
    how = f" ({combine})" if (combine := judge.identity.get("combine")) else ""
    names = told_apart(members(judged))
    return [f"members of the panel: {', '.join(names)}{how}"] if names else []


def _shown(model: str) -> str:
    """A directory by its own name: where it lies is nobody's business who reads a board or a card."""
    return Path(model).name if model.startswith(("/", ".", "~")) else model


def warnings(
    session: Session, protocol: schema.Protocol, judge: schema.Judge, judged: Sequence[Panel], rows: Sequence[Cells]
) -> list[str]:
    found = []
    if judge.proxy:
        found.append(f"`{judge.name}` is a proxy, not a judgment of preference.")
    voices = [("The judge", judge, [panel.judgments for panel in judged])]
    seats = members(judged)
    for place, (member, name) in enumerate(zip(seats, told_apart(seats), strict=True)):
        voices.append((f"The member `{name}`", member, [panel.members[place][1] for panel in judged]))
    for who, asked, said in voices:
        found += _leanings(
            session, protocol, judged, who, asked, sum((one.answered_as for one in said), Counter[str]())
        )
    trained = [len(e.contestants) for panel in judged for e in panel.entrants if e.kind == "method"]
    if trained and min(trained) < 5:
        found.append(f"{counted(min(trained), 'training seeds')}: the variance between seeds is poorly known.")
    if any(r["length_control"] == "fitted without difficulty" for r in rows):
        found.append("Fewer than four contestants: fitted length control knows no prompt's difficulty.")
    if protocol.settings.get("prompts", {}).get("allow_contamination"):
        found.append("Contamination is allowed: held-out prompts were not held against the training prompts.")
    half = sum(r["half_scored"] for r in rows)
    if half:
        found.append(f"Only one of two orders is scored: {counted(half, 'comparisons')}.")
    missed = sum(r["unscored"] for r in rows if r["baseline"])
    if missed:
        found.append(f"Unscored, so counted neither way: {counted(missed, 'comparisons')}.")
    if unrated := sum(_unrated(panel) for panel in judged):
        found.append(f"Without a rating, so not counted: {counted(unrated, 'responses')}.")
    passed = [r["contestant"] for r in rows if r["baseline"] == FIRST and not scoring.loses_clearly(r["ci_high"])]
    if passed:
        found.append(f"Canaries that do not lose clearly under this judge: {', '.join(sorted(passed))}.")
    return found


def _unrated(panel: Panel) -> int:
    """Responses that a judge of single answers was asked about in vain."""
    if panel.baseline is not None or not panel.judgments.pointwise:
        return 0
    return int(panel.judgments.asked.sum() - np.isfinite(panel.judgments.ratings).sum())


def _leanings(
    session: Session,
    protocol: schema.Protocol,
    judged: Sequence[Panel],
    who: str,
    judge: schema.Judge,
    answered: Counter[str],
) -> list[str]:
    """Why a judge may favour somebody; `answered`: judgments by the model that the endpoint says answered."""
    found = []
    shared = sorted(
        {
            c.name
            for c in session.scalars(select(schema.Contestant).where(schema.Contestant.protocol_key == protocol.key))
            if c.model_key == judge.identity.get("scoring_model")
        }
    )
    if shared:
        found.append(f"{who} scores with the weights of a contestant: {', '.join(shared)}.")
    if kin := _kin(protocol, judge, judged, answered):
        found.append(f"{who} is of a contestant's family: {', '.join(sorted(kin))}.")
    if len(answered) > 1:
        shares = ", ".join(f"{model} ({count})" for model, count in answered.most_common())
        changed = f"{who[0].lower()}{who[1:]} changed on the way"
        found.append(f"The endpoint answered as {len(answered)} models, so {changed}: {shares}.")
    return found


def _kin(protocol: schema.Protocol, judge: schema.Judge, judged: Sequence[Panel], answered: Iterable[str]) -> set[str]:
    """Families that the judge shares with teacher or student, by their names."""
    if is_open(protocol.settings):
        models = [e.label for panel in judged for e in panel.entrants]
    else:
        models = [protocol.settings[role].get("model") or "" for role in ("teacher", "student")]
    return families(str(judge.identity.get("model", "")), *answered) & families(*(Path(name).name for name in models))
