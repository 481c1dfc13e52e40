"""AlpacaEval 2's length-controlled win rates from coefficients and difficulties that were published, nothing fitted.

logit P(win) = w_length·tanh(Δlength/σ) + w_difficulty·difficulty(prompt) + bias, predicted at Δlength = 0 (Dubois et
al. 2024, arXiv 2404.04475). Of coefficients alone no standard error can be told: it is None wherever they are used.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dadpo_bench.errors import UserError
from dadpo_bench.records import read_records

_COLUMNS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")
"""As AlpacaEval's file heads them, in the order of `Coefficients`."""


class Coefficients(NamedTuple):
    """One contestant's, on the logit scale."""

    length: float
    """Of tanh(Δlength/σ), Δlength baseline − contestant: negative where the judge likes length."""
    difficulty: float
    bias: float


def read_coefficients(path: Path) -> dict[str, Coefficients]:
    """AlpacaEval's CSV of coefficients → those of every contestant, which the first column names.

    Raises `UserError` with file and line where the file cannot be read, lacks a column, or a row has no name, a name
    seen before, or a coefficient that is no finite number.
    """
    found: dict[str, Coefficients] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            missing = [column for column in _COLUMNS if column not in header[1:]]
            if missing:
                raise UserError(
                    f"{path}, line 1: no column {missing[0]!r}; AlpacaEval's coefficients have three of them"
                )
            places = [header.index(column, 1) for column in _COLUMNS]
            for row in lines:
                if not row:
                    continue
                place = f"{path}, line {lines.line_num}"
                if not row[0].strip():
                    raise UserError(f"{place}: the first column names no contestant")
                if row[0] in found:
                    raise UserError(f"{place}: {row[0]!r} has coefficients already; keep one row of it")
                found[row[0]] = Coefficients(*(_number(row, at, place) for at in places))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"coefficients {path}: {getattr(error, 'strerror', None) or error}") from error
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num}: not valid CSV ({error})") from error
    return found


def _number(row: Sequence[str], at: int, place: str) -> float:
    try:
        number = float(row[at])
    except (IndexError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        given = repr(row[at]) if at < len(row) else "nothing"
        raise UserError(f"{place}: column {at + 1} holds {given}, not a finite number")
    return number


def read_difficulty(path: Path) -> dict[str, float]:
    """A list of {"instruction", "difficulty"} (JSON, or the same as JSONL or Parquet) → difficulty by instruction.

    On the logit scale, higher where contestants win more often. Raises `UserError` with file and record where the file
    cannot be read, a record is of another form, or an instruction has two difficulties.
    """
    found: dict[str, float] = {}
    for place, record in read_records(path, "difficulties"):
        match record:
            case {"instruction": str(instruction), "difficulty": int() | float() as difficulty} if (
                not isinstance(difficulty, bool) and abs(difficulty) < math.inf
            ):
                if found.setdefault(instruction, difficulty) != difficulty:
                    raise UserError(f"{place}: its instruction has another difficulty above; keep one of them")
            case _:
                raise UserError(f'{place}: not {{"instruction": text, "difficulty": a finite number}}')
    return found


def published_win_rate(
    coefficients: Coefficients, difficulty: Mapping[str, float], instructions: Sequence[str]
) -> float:
    """Length-controlled win rate, per cent: the mean prediction over a contestant's instructions at equal lengths.

    Raises `UserError` where an instruction has no difficulty, or there is no instruction.
    """
    absent = [instruction for instruction in instructions if instruction not in difficulty]
    if absent or not instructions:
        reason = f"{len(absent)} have none, the first {absent[0][:60]!r}" if absent else "there are no prompts"
        raise UserError(f"a length-controlled win rate needs every prompt's difficulty: {reason}")
    logits = coefficients.bias + coefficients.difficulty * np.array([difficulty[i] for i in instructions])
    return 100 * float((1 / (1 + np.exp(-np.clip(logits, -700, 700)))).mean())
