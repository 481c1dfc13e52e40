"""The prompt sets that come with the program."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from dadpo_bench.tasks import read_prompts
from dadpo_bench.types import Prompt


def _read(name: str) -> tuple[Prompt, ...]:
    return read_prompts(Path(str(resources.files("dadpo_bench.tasks") / "data" / f"{name}.jsonl")))


def assistance(split: str) -> tuple[Prompt, ...]:
    """In-domain prompts; the three splits share no near-duplicates."""
    return _read(f"assistance-{split}")


def general(split: str) -> tuple[Prompt, ...]:
    """Out-of-domain prompts."""
    return _read("general")
