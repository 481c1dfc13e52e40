"""The entries, and the judge that needs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dadpo_bench.registry import JudgeEntry, config_class, judges, resolve
from dadpo_bench.types import JudgeContext, Prompt, Rating, Reply, Response
from judges import entries

ENTRIES = list(judges)


def test_importing_the_entries_imports_nothing_heavy() -> None:
    check = "import sys, judges.entries; sys.exit(bool({'torch', 'openai', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=Path(entries.__file__).parents[1]).returncode == 0


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entries_point_to_what_they_say(entry: JudgeEntry) -> None:
    judge = resolve(entry.target)
    assert judge.__doc__
    assert hasattr(judge, "judge" if entry.kind == "pairwise" else "rate")
    if entry.config:
        config = config_class(entry, {})
        assert all(field.description for field in config.model_fields.values())
        assert not entry.argument or entry.argument in config.model_fields
        assert config.model_config["frozen"]
        assert config.model_config["extra"] == "forbid"


def test_longer_counts_characters_of_all_replies() -> None:
    judge = resolve(entries.longer.target)(None, JudgeContext(Path, None))
    prompt = Prompt(id="p", turns=("a", "b"))
    replies = (Reply(text="é\U0001f600"), Reply(text="xyz"))
    response = Response(prompt=prompt, replies=replies)
    assert list(judge.rate([response])) == [(0, Rating(value=7.0))]  # 2 + a blank line of 2 + 3
    assert judge.identity() == {"judge": "longer", "version": 1}
