"""Open boards: contestants that no recipe trained (imported, or evaluated as they are), on one task."""

from __future__ import annotations

from typing import Any

from dadpo_bench.types import content_key

_OPEN = "open"


def open_protocol(task: str, baseline: str, variant: str = "") -> dict[str, Any]:
    """The protocol's row: who answers the same task against the same baseline may be compared.

    `variant` says what a name does not: that it is not the whole task, or how the baseline was made to answer it.
    """
    name = f"{task}, against {baseline}" if baseline else task
    settings = {_OPEN: {"task": task, "baseline": baseline}}
    more = []
    if variant:
        name, more = f"{name} ({variant})", [variant]
        settings[_OPEN]["variant"] = variant
    return {"key": content_key("open", task, baseline, *more), "name": name[:200], "settings": settings}


def is_open(settings: dict[str, Any]) -> bool:
    """Whether a protocol's settings are an open board's, not a recipe's."""
    return _OPEN in settings


def open_baseline(settings: dict[str, Any]) -> str:
    """Whom an open board compares with, whether it has answered or not; empty of any other board."""
    return str(settings.get(_OPEN, {}).get("baseline", ""))
