"""AlpacaEval's files: annotations of one contestant each, by `alpaca_eval` 0.6."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dadpo_bench.counts import counted
from dadpo_bench.errors import UserError
from dadpo_bench.exchange.parcel import Format, JudgedBy, Judgment, Parcel, Wanted
from dadpo_bench.recipe import explain
from dadpo_bench.records import read_records
from dadpo_bench.tasks import Task
from dadpo_bench.types import Order, Outcome, Prompt, Reply, Response, Verdict

_TASKS = {"gpt4_1106_preview": "alpaca_eval_2", "text_davinci_003": "alpaca_eval"}
"""Which of its two boards a baseline belongs to."""

_FIRST, _SECOND = "m", "M"
"""How its prompts with log-probs call the response shown first and the one shown second."""

_ROUNDED = 1e-6
"""Published preferences keep ten digits: what differs by more was computed otherwise."""


class _Annotation(BaseModel):
    """A record; what else it holds is not kept."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    instruction: str = Field(min_length=1)
    output_1: str
    generator_1: str = Field(min_length=1)
    output_2: str
    generator_2: str = Field(min_length=1)
    annotator: str = Field(min_length=1)
    preference: float | None
    """1 the baseline's, 2 the contestant's, between them graded; 0 and 1.5 are draws."""
    dataset: str | None = None
    time_per_example: float | None = None
    raw_completion: Any = None


def read(paths: Sequence[Path], wanted: Wanted) -> Parcel:
    """Annotations of any number of contestants against one baseline.

    A preference is read anew from the raw completion where that holds log-probs; the stored one counts where not.
    Raises `UserError` where a record is malformed, by file and line, or where files name different baselines.
    """
    prompts: dict[str, Prompt] = {}
    responses: dict[str, dict[str, Response]] = defaultdict(dict)
    judgments: dict[str, list[Judgment]] = defaultdict(list)
    baselines: set[str] = set()
    other: list[str] = []
    for path in paths:
        for place, record in read_records(path, "AlpacaEval annotations"):
            try:
                found = _Annotation.model_validate(record)
            except ValidationError as error:
                raise UserError(f"{place}: no AlpacaEval annotation ({explain(error, '')})") from error
            if found.preference is not None and not (found.preference == 0 or 1 <= found.preference <= 2):
                raise UserError(f"{place}: preference {found.preference:g} is neither 0 nor from 1 to 2")
            baselines.add(found.generator_1)
            if len(baselines) > 1:
                raise UserError(f"{place}: another baseline ({' and '.join(sorted(baselines))}); import them apart")
            prompt = Prompt(id=found.instruction[:_ID], turns=(found.instruction,), category=found.dataset or "")
            prompt = prompts.setdefault(prompt.key, prompt)
            if prompt.key in responses[found.generator_2]:
                raise UserError(f"{place}: a second annotation of '{found.generator_2}' on the same instruction")
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
        raise UserError(f"{', '.join(map(str, paths))}: no annotation")
    baseline = baselines.pop()
    name = wanted.task or _TASKS.get(baseline, "alpaca_eval")
    remarks = [f"{counted(len(other), 'preferences')} read from log-probs differ from the stored ones", *other[:5]]
    return Parcel(
        Task(name=name, domain="out", split="heldout", prompts=tuple(prompts.values())),
        responses,
        baseline,
        [JudgedBy(judge, "pairwise", {"imported": _CALLED, "annotator": judge}, j) for judge, j in judgments.items()],
        remarks if other else (),
    )


_CALLED = "alpaca-eval-annotations"
_ID = 200
"""Characters of an instruction that serve as its prompt's id."""


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
        "resolved_model": found.annotator,
    }
    # What the file says counts: rounding apart it is the same, and where it is not, that is told.
    if stored is None:
        return Verdict(outcome=Outcome.unscored, reason="no preference in the file", **kept), remark
    worth = stored - 1
    outcome = Outcome.win if worth > 0.5 else Outcome.loss if worth < 0.5 else Outcome.tie
    return Verdict(outcome=outcome, preference=worth, **kept), remark


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


def write(parcel: Parcel) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """One file a contestant and annotator, as `alpaca_eval` writes them; verdicts of a drawn order alone are whole."""
    for judge in parcel.judged:
        if judge.kind != "pairwise":
            continue
        by_contestant: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for judgment in judge.judgments:
            ours = parcel.responses[judgment.contestant][judgment.prompt]
            theirs = parcel.responses[parcel.baseline][judgment.prompt]
            said = judgment.said
            worth = said.worth if isinstance(said, Verdict) else None
            by_contestant[judgment.contestant].append(
                {
                    "instruction": "\n\n".join(ours.prompt.turns),
                    "output_1": theirs.text,
                    "generator_1": parcel.baseline,
                    "dataset": ours.prompt.category,
                    "output_2": ours.text,
                    "generator_2": judgment.contestant,
                    "annotator": judge.name,
                    "preference": None if worth is None else 1 + worth,
                    "time_per_example": said.seconds,
                    "raw_completion": _raw(said.raw),
                }
            )
        for contestant, records in by_contestant.items():
            yield f"{judge.name}/{contestant}.json", records


def _raw(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return text


ANNOTATIONS = Format("AlpacaEval: a judge's preferences between contestants and the baseline (.json)", read, write)
