"""The board: stored judgments as Markdown, byte-identical for the same store; the clock is never asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dadpo_bench import scoring
from dadpo_bench.counts import counted
from dadpo_bench.errors import WorkError
from dadpo_bench.families import families
from dadpo_bench.judging.evaluations import cited
from dadpo_bench.judging.judgments import told_apart
from dadpo_bench.open_board import is_open
from dadpo_bench.panels import BASELINES, DRAWS, SEED, Panel, panels
from dadpo_bench.places import METHODS_STORE
from dadpo_bench.recipe import FIRST
from dadpo_bench.scores import resampled, rows_of
from dadpo_bench.scoring import agreement
from dadpo_bench.store import Store, open_store, schema

Cells = dict[str, Any]

# The paper's words and figures. Never in a column with measured ones.
REPORTED = (
    ("Vicuna-1.5-7B pruned by 20 %, taught by its parent", "daDPO", "preference rate, in-domain", "−7.3 %"),
    ("Vicuna-1.5-7B pruned by 20 %, taught by its parent", "dDPO", "preference rate, in-domain", "−31 %"),
    ("Qwen2.5-1.5B, taught by Qwen2.5-7B", "daDPO", "win rate, in-domain", "14.0 %"),
)


@dataclass(frozen=True)
class Section:
    """Rows that may be compared: one protocol, one judge."""

    protocol_key: str
    recipe: str
    judge: str
    judge_key: str
    proxy: bool
    rows: list[Cells]
    domains: dict[str, str]
    """Domain of each task, `in` or `out`."""
    facts: list[str]
    warnings: list[str]
    accord: agreement.Accord | None = None
    """Of the members of a panel."""
    differences: list[Cells] = field(default_factory=list)

    @property
    def board_rows(self) -> list[Cells]:
        """Contestants against the teacher."""
        return [row for row in self.rows if row["baseline"] != FIRST]

    @property
    def canary_rows(self) -> list[Cells]:
        """Canaries against dSFT."""
        return [row for row in self.rows if row["baseline"] == FIRST]


def sections(session: Session, *, differences: bool = False, per_seed: bool = False) -> list[Section]:
    """Every scored section of a store's board, computed from judgments; `per_seed`: each training seed apart."""
    query = (
        select(schema.Score.protocol_key, schema.Score.judge_key, schema.Protocol.name, schema.Judge.name)
        .join(schema.Protocol, schema.Protocol.key == schema.Score.protocol_key)
        .join(schema.Judge, schema.Judge.key == schema.Score.judge_key)
        .distinct()
    )
    found = sorted(session.execute(query).all(), key=lambda r: (r[2], r[3], r[0], r[1]))
    return [_section(session, protocol, judge, differences, per_seed) for protocol, judge, _, _ in found]


def _section(session: Session, protocol_key: str, judge_key: str, differences: bool, per_seed: bool) -> Section:
    protocol = session.get_one(schema.Protocol, protocol_key)
    judge = session.get_one(schema.Judge, judge_key)
    judged = panels(session, protocol_key, judge_key)
    computed = [(p.task, row) for p in judged for row in rows_of(p.per_seed() if per_seed else p)]
    tasks = list({task.key: task for task, _ in computed}.values())
    domains = {t.name: t.domain for t in sorted(tasks, key=lambda t: (t.domain, t.name))}
    order = list(domains)
    rows = sorted(
        (row.cells() for _, row in computed),
        key=lambda r: (
            r["baseline"] == FIRST,
            order.index(r["task"]),
            -(r["win_rate"] or 0),
            r["contestant"],
        ),
    )
    accord = _accord(judged)
    return Section(
        protocol_key=protocol_key,
        recipe=protocol.name,
        judge=judge.name,
        judge_key=judge_key,
        proxy=judge.proxy,
        rows=rows,
        domains=domains,
        facts=_facts(session, protocol, judge, judged),
        warnings=_warnings(session, protocol, judge, judged, rows) + ([f"Members agree: {accord}."] if accord else []),
        accord=accord,
        differences=_differences(judged) if differences else [],
    )


def _members(judged: Sequence[Panel]) -> list[schema.Judge]:
    """Who decides together; none where one judge does alone."""
    return [member for member, _ in judged[0].members] if judged else []


def _accord(judged: Sequence[Panel]) -> agreement.Accord | None:
    if members := _members(judged):
        return agreement.accord(told_apart(members), np.hstack([panel.said_by_members() for panel in judged]))
    return None


def _facts(session: Session, protocol: schema.Protocol, judge: schema.Judge, judged: Sequence[Panel]) -> list[str]:
    runs = session.scalars(
        select(schema.Run).where(schema.Run.protocol_key == protocol.key).order_by(schema.Run.started)
    ).all()
    counts = []
    for task in (panel.task for panel in judged):
        number_of = session.scalar(
            select(func.count()).select_from(schema.TaskPrompt).where(schema.TaskPrompt.task_key == task.key)
        )
        counts.append(f"{task.name} ({task.domain}-domain, {counted(number_of or 0, 'prompts')})")
    facts = [
        *_origin(protocol),
        f"tasks: {'; '.join(counts)}",
        f"judge: {judge.name}" + (", a proxy: its numbers are no judgment of preference" if judge.proxy else ""),
        *_membership(judge, judged),
        *_compared_with(protocol, judged),
    ]
    evaluations = select(schema.JudgeEvaluation).where(schema.JudgeEvaluation.judge_key == judge.key)
    facts += cited(session.scalars(evaluations))
    contestants = [(panel, e) for panel in judged for e in panel.entrants if e.kind not in (*BASELINES, "canary")]
    members = _members(judged)
    sees_orders = judge.kind == "pairwise" if not members else any(member.kind == "pairwise" for member in members)
    if sees_orders and all(panel.orders(e).shape[-1] == 1 for panel, e in contestants):
        facts.append("orders: one for each pair, so the judge's position bias is not known")
    if runs:
        first, last = (r.started.date().isoformat() for r in (runs[0], runs[-1]))
        machine = runs[-1].environment
        facts += [
            f"run: {first}" + (f" to {last}" if last != first else ""),
            f"computed in {machine['precision']} (weights/arithmetic) on {machine['device']}, "
            f"torch {machine['versions']['torch']}, transformers {machine['versions']['transformers']}",
        ]
    return facts


def _origin(protocol: schema.Protocol) -> list[str]:
    """Who was taught by whom; of an open board nobody was."""
    settings = protocol.settings
    if is_open(settings):
        return ["contestants: as they were imported or evaluated; nobody was trained here"]
    teacher = _shown(settings["teacher"]["model"])
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
    names = told_apart(_members(judged))
    return [f"members of the panel: {', '.join(names)}{how}"] if names else []


def _shown(model: str) -> str:
    """A directory by its own name: where it lies is nobody's business who reads a board or a card."""
    return Path(model).name if model.startswith(("/", ".", "~")) else model


def _warnings(
    session: Session, protocol: schema.Protocol, judge: schema.Judge, judged: Sequence[Panel], rows: Sequence[Cells]
) -> list[str]:
    found = []
    if judge.proxy:
        found.append(f"`{judge.name}` is a proxy, not a judgment of preference.")
    voices = [("The judge", judge, [panel.judgments for panel in judged])]
    members = _members(judged)
    for place, (member, name) in enumerate(zip(members, told_apart(members), strict=True)):
        voices.append((f"The member `{name}`", member, [panel.members[place][1] for panel in judged]))
    for who, asked, said in voices:
        found += _leanings(
            session, protocol, judged, who, asked, sum((one.answered_as for one in said), Counter[str]())
        )
    trained = [len(e.contestants) for panel in judged for e in panel.entrants if e.kind == "method"]
    if trained and min(trained) < 5:
        found.append(f"{counted(min(trained), 'training seeds')}: the variance between seeds is poorly known.")
    half = sum(r["half_scored"] for r in rows)
    if half:
        found.append(f"Only one of two orders is scored: {counted(half, 'comparisons')}.")
    missed = sum(r["unscored"] for r in rows)
    if missed:
        found.append(f"Unscored, so counted neither way: {counted(missed, 'comparisons')}.")
    passed = [r["contestant"] for r in rows if r["baseline"] == FIRST and not scoring.loses_clearly(r["ci_high"])]
    if passed:
        found.append(f"Canaries that do not lose clearly under this judge: {', '.join(sorted(passed))}.")
    return found


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


def _differences(judged: Sequence[Panel]) -> list[Cells]:
    """Paired differences between methods on their shared prompts, Holm-corrected over the section."""
    found: list[Cells] = []
    for panel in judged:
        methods = [e for e in panel.entrants if e.kind in ("method", "entrant")]
        counts = scoring.bootstrap_counts(len(panel.prompts), DRAWS, SEED)
        labels = sorted(e.label for e in methods)
        orders = [panel.orders(e) for e in sorted(methods, key=lambda e: e.label)]
        outcomes = [scoring.prompt_outcomes(given) for given in orders]
        tested = scoring.all_paired_differences(outcomes, resampled(orders), counts, seed=SEED)
        for (first, second), difference in sorted(tested.items()):
            if difference is not None:
                pair = {"first": labels[first], "second": labels[second]}
                found.append({"task": panel.task.name, **pair, **difference._asdict()})
    corrected = scoring.holm([f["p_value"] for f in found])
    return [{**f, "p_holm": p} for f, p in zip(found, corrected, strict=True)]


def write_board(store: Store) -> Path:
    """Regenerate the store's board; returns its path. Raises `WorkError` where it cannot be written."""
    text = render(store)
    try:
        store.board.parent.mkdir(parents=True, exist_ok=True)
        store.board.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkError(f"cannot write {store.board}: {error.strerror}") from error
    return store.board


def render(store: Store, *, per_seed: bool = False) -> str:
    """The board as Markdown; `per_seed`: a row for each training seed, without the differences between methods."""
    found: list[tuple[str, Section]] = []
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(open_store(str(path), create=False))) for path in store.companions]
        for each in opened or [store]:
            with each.read() as session:
                found += [(_name(each), s) for s in sections(session, differences=not per_seed, per_seed=per_seed)]
        names = " and ".join(f"`{_name(each)}`" for each in opened or [store])
    lines = [
        "# Leaderboard",
        "",
        f"Generated by `dadpo-bench leaderboard` from {names}; edits are",
        "overwritten. Rates and shares are per cent, lengths characters, KL nats a token. Win rate: share of prompts",
        "won against the baseline, a tie is half. Preference rate: share of prompts won minus share lost. Intervals:",
        "bootstrap over prompts and seeds. Repetition: share of word 4-grams that a response had said before.",
        "",
    ]
    if not found:
        lines += ["Nothing has been scored yet: `dadpo-bench run dadpo`.", ""]
    for name, section in found:
        heading, note = _BESIDE if store.companions and name == METHODS_STORE.name else ("", "")
        lines += _markdown(section, heading, note)
    if store.is_committed:
        lines += _reported()
    return "\n".join(lines)


_BESIDE = (
    "The field's other methods: ",
    "Same prompts, teacher, student and judge as above, one training seed, every learning rate chosen among as many. "
    "`dadpo` and `dpo` of the same run stand beside them, on the same pairs: compare within this section.",
)


def _name(store: Store) -> str:
    return store.path.name if store.path else "a team store"


_COLUMNS: tuple[tuple[str, Callable[[Cells], str]], ...] = (
    ("contestant", lambda r: escape(r["contestant"])),
    ("win rate", lambda r: number(r["win_rate"])),
    ("95 % interval", lambda r: _range(r["ci_low"], r["ci_high"])),
    ("std. error", lambda r: number(r["standard_error"])),
    ("win / tie / loss", lambda r: _shares(r)),
    ("preference rate", lambda r: number(r["preference_rate"], sign=True)),
    ("flip rate", lambda r: number(r["flip_rate"])),
    ("prompts", lambda r: str(r["prompts"])),
    ("unscored", lambda r: str(r["unscored"])),
    ("length", lambda r: number(r["mean_length"], 0)),
    ("cut", lambda r: number(r["cut_share"])),
    ("repetition", lambda r: number(r["repetition"])),
    ("KL from teacher", lambda r: number(r["kl_from_teacher"], 3)),
    ("KL to teacher", lambda r: number(r["kl_to_teacher"], 3)),
    ("seeds", lambda r: str(r["seeds"])),
    ("by seed", lambda r: ", ".join(number(v) for v in r["per_seed"]) if len(r["per_seed"]) > 1 else "–"),
)
_CANARY = ("contestant", "win rate", "95 % interval", "prompts", "unscored", "length")


def _range(low: float | None, high: float | None) -> str:
    return "–" if low is None else f"{number(low)} to {number(high)}"


def _shares(row: Cells) -> str:
    shares = [number(row[f"{kind}_share"]) for kind in ("win", "tie", "loss")]
    return "–" if row["win_share"] is None else " / ".join(shares)


def _markdown(section: Section, heading: str, note: str) -> list[str]:
    lines = [f"## {heading}{escape(section.recipe)}, judge {escape(section.judge)}", "", *([note, ""] if note else [])]
    lines += [f"- {escape(fact)}" for fact in section.facts]
    lines += [f"- **note**: {escape(warning)}" for warning in section.warnings] + [""]
    for task, domain in section.domains.items():
        baselines = dict.fromkeys(row["baseline"] for row in section.board_rows if row["task"] == task)
        against = " and ".join("the teacher" if name == "teacher" else escape(name) for name in baselines if name)
        lines += [f"### {escape(task)} ({domain}-domain)" + (f", against {against}" if against else ""), ""]
        lines += table(
            [name for name, _ in _COLUMNS],
            [[cell(row) for _, cell in _COLUMNS] for row in section.board_rows if row["task"] == task],
        )
    if section.differences:
        lines += [
            "### Differences between methods",
            "",
            "Paired on shared prompts, percentage points; p from sign flips of prompts, Holm-corrected in this table.",
            "p knows nothing of the variance between training seeds, the interval does: proven needs both.",
            "",
        ]
        lines += table(
            ["task", "difference", "points", "95 % interval", "p", "p (Holm)", "proven at 5 %"],
            [
                [
                    escape(d["task"]),
                    f"{escape(d['first'])} − {escape(d['second'])}",
                    number(d["estimate"], sign=True),
                    f"{number(d['low'], sign=True)} to {number(d['high'], sign=True)}",
                    number(d["p_value"], 3),
                    number(d["p_holm"], 3),
                    "yes" if d["p_holm"] < 0.05 and not d["low"] <= 0 <= d["high"] else "no",
                ]
                for d in section.differences
            ],
        )
    if section.canary_rows:
        lines += [
            "### Canaries, against dSFT",
            "",
            "A usable judge ranks them low: upper bound below 50.",
            "",
        ]
        columns = [(name, cell) for name, cell in _COLUMNS if name in _CANARY]
        lines += table(
            [*(name for name, _ in columns), "loses clearly"],
            [
                [*(cell(row) for _, cell in columns), "yes" if scoring.loses_clearly(row["ci_high"]) else "**no**"]
                for row in section.canary_rows
            ],
        )
    return lines


def _reported() -> list[str]:
    lines = [
        "## Reported by the paper, not measured here",
        "",
        "daDPO (Zhang et al., Findings of ACL 2025, arXiv 2506.15717), in the paper's words; other models, prompts",
        "and judges than above.",
        "",
    ]
    return lines + table(["setting", "method", "figure", "reported"], [list(row) for row in REPORTED])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table and the blank line behind it."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def escape(text: str) -> str:
    """Names are data: nothing in them is a cell's end, a tag or a line's end."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    for mark in "|<>[]`*" if "`" not in plain else "|<>[]*":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A figure as boards show it; an en dash where there is none."""
    if value is None:
        return "–"
    # Sums in another order differ in the last bits: they must not decide between 6.2 and 6.3, or +0.0 and −0.0.
    value = round(value, 9) + 0.0
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")
