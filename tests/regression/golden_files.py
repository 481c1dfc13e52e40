"""The committed files of golden figures: `golden/NAME.json` for each case."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.regression.cases import REFITTED

FOLDER = Path(__file__).parent / "golden"


def read(name: str) -> Any:
    """What was committed of a case."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def as_stored(value: Any) -> Any:
    """What is computed, as JSON gives it back. Raises `ValueError` for NaN and ∞: a board has none."""
    return json.loads(json.dumps(value, allow_nan=False))


def differences(name: str, computed: Any) -> list[str]:
    """Where what is computed is no longer what was committed, a line each."""
    return list(_differences(name, read(name), as_stored(computed), 1e-6 if name in REFITTED else 1e-9))


def _differences(place: str, golden: Any, computed: Any, tolerance: float) -> Iterator[str]:
    if isinstance(golden, dict) and isinstance(computed, dict) and golden.keys() == computed.keys():
        for key in golden:
            yield from _differences(f"{place} / {key}", golden[key], computed[key], tolerance)
    elif isinstance(golden, list) and isinstance(computed, list) and len(golden) == len(computed):
        for i, (one, other) in enumerate(zip(golden, computed, strict=True)):
            name = one.get("contestant", i) if isinstance(one, dict) else i
            yield from _differences(f"{place} / {name}", one, other, tolerance)
    elif not _same(golden, computed, tolerance):
        yield f"{place}: {golden!r} is now {computed!r}"


def _same(golden: Any, computed: Any, tolerance: float) -> bool:
    if isinstance(golden, float) and isinstance(computed, float | int) and not isinstance(computed, bool):
        return math.isclose(golden, computed, rel_tol=tolerance, abs_tol=tolerance)
    return type(golden) is type(computed) and bool(golden == computed)
