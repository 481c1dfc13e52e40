"""A JSONL file of prompts, with what judges are shown beside them."""

import json
from pathlib import Path

from dadpo_bench.tasks import read_prompts


def test_a_line_may_carry_reference_answers_and_a_checklist(tmp_path: Path) -> None:
    line = {"id": "p", "turns": ["2 + 2?"], "reference": ["4"], "checklist": ["says 4", "shows no working"]}
    (tmp_path / "p.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (prompt,) = read_prompts(tmp_path / "p.jsonl")
    assert (prompt.reference, prompt.checklist) == (("4",), ("says 4", "shows no working"))
    assert prompt.key != prompt.model_copy(update={"reference": ()}).key
