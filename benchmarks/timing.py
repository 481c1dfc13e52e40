"""Times contenders by turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def rounds_of_seconds(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in every round, behind one that warms up; every second round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            began = time.perf_counter()
            contenders[name]()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()  # it works on behind the call
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median_seconds(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender over its rounds."""
    return {name: statistics.median(taken) for name, taken in rounds_of_seconds(contenders, rounds).items()}
