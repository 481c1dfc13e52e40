"""AlpacaEval's files, as `alpaca_eval` 0.6 writes them: outputs, and annotations of one contestant each."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.exchange.reading import Label, Name, Record, records
from dadpo_bench.tasks import Task
from dadpo_bench.tasks.data_set import checked
from dadpo_bench.types import Order, Outcome, Prompt, Reply, Response, Verdict, content_key

_WHAT = "AlpacaEval"
_CALLED = "alpaca-eval-annotations"
_ID = 180
"""Characters of an instruction that serve as its prompt's id; of a longer one a hash stands behind them."""

_BASELINES = {"alpaca_eval_2": "gpt4_1106_preview", "alpaca_eval": "text_davinci_003"}
"""Of its two boards; the first is meant where nothing tells."""
_TASKS = {baseline: task for task, baseline in _BASELINES.items()}

_FIRST, _SECOND = "m", "M"
"""How its prompts with log-probs call the response shown first and the one shown second."""

_ROUNDED = 1e-6
"""Published preferences keep ten digits: what differs by more was computed otherwise."""


class _Output(Record):
    instruction: str
    output: str
    generator: Name
    dataset: Label | None = None


class _Annotation(Record):
    instruction: str
    output_1: str
    generator_1: Name
    output_2: str
    generator_2: Name
    annotator: Name
    preference: float | None
    """1 the baseline's, 2 the contestant's, between them graded; 0 and 1.5 are draws."""
    dataset: Label | None = None
    time_per_example: float | None = None
    raw_completion: Any = None


def read_annotations(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Annotations of any number of contestants against one baseline.

    A preference is read anew from the raw completion where that holds log-probs. Where the two differ the stored one
    counts, and a remark tells it. Raises `UserError` where a record is malformed or repeated, or compares somebody
    with themselves, by file and line, and where files name several baselines and nobody chose.
    """
    prompts: dict[str, Prompt] = {}
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    judgments: dict[str, list[Judgment]] = defaultdict(list)
    baselines: set[str] = set()
    said: set[tuple[str, str, str]] = set()
    other: list[str] = []
    for place, found in records(paths, wanted.told, _WHAT, {"annotator": _Annotation}):
        if found.preference is not None and not (found.preference == 0 or 1 <= found.preference <= 2):
            raise UserError(f"{place}: preference {found.preference:g} is neither 0 nor from 1 to 2")
        if found.generator_1 == found.generator_2:
            raise UserError(f"{place}: '{found.generator_1}' is compared with itself")
        if wanted.baseline not in (None, found.generator_1):
            continue
        baselines.add(found.generator_1)
        if len(baselines) > 1:
            raise UserError(f"{place}: another baseline ({' and '.join(sorted(baselines))}); choose with --baseline")
        prompt = _prompt(found.instruction, found.dataset, place)
        prompt = prompts.setdefault(prompt.key, prompt)
        if (found.annotator, found.generator_2, prompt.key) in said:
            raise UserError(f"{place}: a second annotation of '{found.generator_2}' on the same instruction")
        said.add((found.annotator, found.generator_2, prompt.key))
        for name, text in ((found.generator_1, found.output_1), (found.generator_2, found.output_2)):
            response = Response(prompt=prompt, replies=(Reply(text=text),))
            if responses[name].setdefault(prompt.key, response).text != text:
                raise UserError(f"{place}: '{name}' answered the same instruction otherwise before")
        verdict, remark = _verdict(found)
        if remark:
            other.append(f"{place}: {remark}")
        order = _order(found.instruction)
        judgments[found.annotator].append(Judgment(found.generator_2, prompt.key, verdict, order))
    if not baselines:
        against = f" against '{wanted.baseline}'" if wanted.baseline else ""
        raise UserError(f"{', '.join(map(str, paths))}: no annotation{against}")
    baseline = baselines.pop()
    name = wanted.task or _TASKS.get(baseline, "alpaca_eval")
    remarks = [f"{counted(len(other), 'preferences')} read from log-probs: not what is stored, which counts", *other]
    return Parcel(
        Task(name=name, domain="out", split="heldout", prompts=tuple(prompts.values())),
        responses,
        baseline,
        [JudgedBy(judge, "pairwise", _identity(judge), j) for judge, j in judgments.items()],
        remarks if other else (),
    )


def _prompt(instruction: str, dataset: str | None, place: str) -> Prompt:
    long = f" {content_key(instruction)[:8]}" if len(instruction) > _ID else ""
    return checked(Prompt(id=instruction[:_ID] + long, turns=(instruction,), category=dataset or ""), place)


def _identity(annotator: str) -> dict[str, str]:
    # Its name holds its model's; that of the benchmark in it is no model of the alpaca family.
    return {"imported": _CALLED, "annotator": annotator, "model": annotator.replace("alpaca_eval", "")}


def _order(instruction: str) -> Order:
    """Which response AlpacaEval shows first, by its seed: it swaps the two where this draws so."""
    swapped = random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]
    return "ab" if swapped else "ba"


def _verdict(found: _Annotation) -> tuple[Verdict, str]:
    """The verdict, and how it differs from what is stored, if it does."""
    raw = found.raw_completion
    stored = 1.5 if found.preference == 0 else found.preference
    anew = _from_logprobs(raw, _order(found.instruction))
    remark = ""
    if anew is not None and stored is not None and abs(anew - stored) > _ROUNDED:
        remark = f"{stored:.6f} is stored, {anew:.6f} follows from the log-probs"
    kept = {
        "raw": "" if raw is None else raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False),
        "seconds": found.time_per_example or 0.0,
        "tokens": _tokens(raw),
    }
    # The stored one counts: published figures were made of it.
    if stored is None:
        return Verdict(outcome=Outcome.unscored, reason="no preference in the file", **kept), remark
    worth = stored - 1
    return Verdict(outcome=Outcome.of(worth), preference=worth, **kept), remark


def _tokens(raw: Any) -> int:
    total = raw.get("total_tokens") if isinstance(raw, Mapping) else None
    return int(total) if isinstance(total, int | float) and 0 <= total < 1e9 else 0


def _from_logprobs(raw: Any, order: Order) -> float | None:
    """The preference that the first token's log-probs give; None where they are not there."""
    try:
        top = {t["token"]: float(t["logprob"]) for t in raw["logprobs"]["content"][0]["top_logprobs"]}
        first, second = (math.exp(top.get(label, -math.inf)) for label in (_FIRST, _SECOND))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return None
    if not first + second > 0:
        return None
    preference = 2 - first / (first + second)
    return 3 - preference if order == "ab" else preference


def write_annotations(parcel: Parcel) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """One file a contestant and annotator, as `alpaca_eval` writes them.

    It knows one verdict a pair: of two orders the mean, without the judge's words; unscored where either is.
    """
    for judge in parcel.judged:
        if judge.kind != "pairwise":
            continue
        pairs: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
        for judgment in judge.judgments:
            if isinstance(judgment.said, Verdict):
                pairs[judgment.contestant, judgment.prompt].append(judgment.said)
        by_contestant: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for (contestant, prompt), said in pairs.items():
            ours, theirs = parcel.responses[contestant][prompt], parcel.responses[parcel.baseline][prompt]
            worths = [verdict.worth for verdict in said]
            by_contestant[contestant].append(
                {
                    "instruction": "\n\n".join(ours.prompt.turns),
                    "output_1": theirs.text,
                    "generator_1": parcel.baseline,
                    "dataset": ours.prompt.category,
                    "output_2": ours.text,
                    "generator_2": contestant,
                    "annotator": judge.name,
                    "preference": None if None in worths else 1 + sum(w for w in worths if w is not None) / len(worths),
                    "time_per_example": sum(verdict.seconds for verdict in said),
                    "raw_completion": _raw(said[0].raw) if len(said) == 1 else None,
                }
            )
        for contestant, rows in by_contestant.items():
            yield (judge.name, f"{contestant}.json"), rows


def _raw(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


def read_outputs(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Outputs of any number of contestants, for the board of the baseline among them, else of the task's own."""
    prompts: dict[str, Prompt] = {}
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    for place, found in records(paths, wanted.told, _WHAT, {"generator": _Output}):
        prompt = _prompt(found.instruction, found.dataset, place)
        prompt = prompts.setdefault(prompt.key, prompt)
        if prompt.key in responses[found.generator]:
            raise UserError(f"{place}: a second output of '{found.generator}' to the same instruction")
        responses[found.generator][prompt.key] = Response(prompt=prompt, replies=(Reply(text=found.output),))
    if not responses:
        raise UserError(f"{', '.join(map(str, paths))}: no output")
    told = wanted.baseline or next((who for who in responses if who in _TASKS), None)
    name = wanted.task or (_TASKS.get(told, "alpaca_eval") if told else next(iter(_BASELINES)))
    baseline = told or _BASELINES.get(name, "")
    return Parcel(Task(name=name, domain="out", split="heldout", prompts=tuple(prompts.values())), responses, baseline)


def write_outputs(parcel: Parcel) -> Iterator[tuple[tuple[str, ...], list[dict[str, Any]]]]:
    """One file a contestant; of a conversation the turns and the replies stand under each other."""
    for name, given in parcel.responses.items():
        yield (
            (f"{name}.json",),
            [
                {
                    "instruction": "\n\n".join(response.prompt.turns),
                    "output": response.text,
                    "generator": name,
                    "dataset": response.prompt.category,
                }
                for response in given.values()
            ],
        )


ANNOTATIONS = Format(
    "AlpacaEval: a judge's preferences between contestants and the baseline (.json)",
    read_annotations,
    write_annotations,
    {"annotator": _Annotation},
)
OUTPUTS = Format("AlpacaEval: what contestants answered (.json)", read_outputs, write_outputs, {"output": _Output})
