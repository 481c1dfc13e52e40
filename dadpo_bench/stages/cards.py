"""A model card beside every checkpoint: how it was made, and what a judge said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from dadpo_bench import registry
from dadpo_bench.counts import counted
from dadpo_bench.leaderboard import escape, number, sections, table
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.tasks import Task


def write_cards(
    bench: Bench,
    protocol_key: str,
    judge_key: str,
    settings: Mapping[str, Mapping[str, Any]],
    models: Mapping[tuple[str, int], LocalModel],
    learnt: Task,
) -> None:
    """Write `README.md` into the directory of every model, by contestant and seed; `settings` by contestant."""
    with bench.store.read() as session:
        boards = [s for s in sections(session) if (s.protocol_key, s.judge_key) == (protocol_key, judge_key)]
    for (name, seed), model in models.items():
        method = registry.methods[settings[name]["method"]]
        data = ModelCardData(
            library_name="transformers", pipeline_tag="text-generation", tags=["dadpo-bench", method.name]
        )
        lines = ["---", data.to_yaml(), "---", f"# {name}, seed {seed}", "", f"{method.summary}. {method.source}.", ""]
        responses = "the teacher's responses" + " and the dSFT student's own" * (method.data == "pairs")
        if method.rollouts:
            responses = "its own responses, scored by the teacher,"
        prompts = counted(len(learnt.prompts), "prompts")
        lines += [f"Trained on {responses} to {prompts} of {escape(learnt.name)}, split {learnt.split}.", ""]
        chosen = {k: v for k, v in settings[name].items() if k != "method"}
        lines += [*table(("setting", "value"), [(k, escape(str(v))) for k, v in chosen.items()]), ""]
        for board in boards:
            lines += [f"- {escape(fact)}" for fact in board.facts]
            rows = [r for r in board.rows if r["contestant"] == name and r["baseline"] == "teacher"]
            lines += ["", "Win rate against the teacher, per cent, mean over training seeds, 95 % interval:", ""]
            lines += table(
                ("task", "win rate", "from", "to", "prompts", "unscored", "seeds"),
                [
                    (
                        escape(r["task"]),
                        *(number(r[column]) for column in ("win_rate", "ci_low", "ci_high")),
                        *(str(r[column]) for column in ("prompts", "unscored", "seeds")),
                    )
                    for r in rows
                ],
            )
            lines += ["", *(f"- {escape(warning)}" for warning in board.warnings), ""]
        lines.append("Made and judged by dadpo-bench. An ordinary Hugging Face directory: `from_pretrained` loads it.")
        (model.directory / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
