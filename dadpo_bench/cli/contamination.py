"""`dadpo-bench contamination`: which held-out prompts were trained on, or nearly so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench.cli.options import DataOption, JsonOption
from dadpo_bench.errors import UserError

_EXAMPLES = """
Hold held-out prompts against training prompts: equal ones, near-duplicates, and passages of 13 words in common.

Words count, not case, spacing or punctuation. Exit code 0 where nothing is found, 1 where something is.

Examples:

  dadpo-bench contamination --train assistance --task general

  dadpo-bench contamination --train my-prompts.jsonl --task mt_bench --task arena_hard_v2.0 --data downloads

  dadpo-bench contamination --train my-prompts.jsonl --task my-held-out.csv --write clean.jsonl
"""

_SHOWN = 20


def contamination(
    train: Annotated[str, typer.Option(metavar="TASK|FILE", help="A task's `train` split, or a file of prompts.")],
    task: Annotated[list[str], typer.Option(metavar="TASK|FILE", help="Held-out prompts; may be given several times.")],
    data: DataOption = None,
    threshold: Annotated[
        float, typer.Option(min=0.05, max=1, help="Jaccard similarity of word triples that makes near-duplicates.")
    ] = 0.7,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Write the training prompts that nothing leaked from.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See `_EXAMPLES`, which typer shows."""
    from dadpo_bench import registry
    from dadpo_bench.contamination import KINDS, label, overlap
    from dadpo_bench.counts import counted
    from dadpo_bench.progress import Reporter
    from dadpo_bench.tables import print_table
    from dadpo_bench.tasks import Task, load_task

    def needy(name: str) -> bool:
        return name in registry.tasks.names() and bool(registry.tasks[name].repository)

    def load(name: str, split: str) -> Task:
        return load_task(name, split, data=data if needy(name) else None)

    if write is not None and (write.suffix != ".jsonl" or not write.parent.is_dir()):
        raise UserError(f"--write {write}: it writes JSON Lines; name a .jsonl file in a folder that there is")
    if data is not None and not any(map(needy, (train, *task))):
        raise UserError("--data: neither the training prompts nor a task are read from files of a published task")
    learnt = load(train, "train")
    held_out = [load(name, "heldout") for name in task]
    console = Console()
    reporter = Reporter(Console(stderr=True), quiet=as_json)
    found = {}
    with reporter.running():
        for held in held_out:
            with reporter.bar(held.name, len(learnt.prompts), "prompts") as bar:
                found[held.name] = overlap(learnt.prompts, held.prompts, threshold, bar.advance)
    report: list[dict[str, Any]] = [
        {
            "train": learnt.name,
            "task": held.name,
            "train_prompts": len(learnt.prompts),
            "prompts": len(held.prompts),
            "threshold": threshold,
            **{kind: found[held.name].count(kind) for kind in KINDS},
            "pairs": [
                {
                    "kind": leak.kind,
                    "similarity": leak.similarity,
                    "heldout": leak.heldout.model_dump(mode="json", include={"id", "turns"}),
                    "train": leak.train.model_dump(mode="json", include={"id", "turns"}),
                }
                for leak in found[held.name].leaks
            ],
        }
        for held in held_out
    ]
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        table = Table("task", title=f"held-out prompts against {counted(len(learnt.prompts), 'training prompts')}")
        for name in ("prompts", *KINDS):
            table.add_column(name, justify="right", no_wrap=True)
        for row in report:
            table.add_row(escape(row["task"]), *(f"{row[name]:,}" for name in ("prompts", *KINDS)))
        print_table(console, table)
        console.print(f"near-duplicates: similarity of word triples from {threshold:g}", highlight=False)
        leaks = [(name, leak) for name, result in found.items() for leak in result.leaks]
        for name, leak in leaks[:_SHOWN]:
            console.print(f"\n{name}, {leak.how}", markup=False, highlight=False, emoji=False)
            for who, prompt in (("held out", leak.heldout), ("training", leak.train)):
                text = f"  {who} {label(prompt.model_copy(update={'turns': (prompt.id,)}), 40)}: {label(prompt, 100)}"
                console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        if len(leaks) > _SHOWN:
            console.print(f"\nand {len(leaks) - _SHOWN:,} more (--json shows all)", highlight=False)
    offending = frozenset().union(*(result.train for result in found.values()))
    if write is not None:
        kept = [prompt for place, prompt in enumerate(learnt.prompts) if place not in offending]
        lines = "".join(prompt.model_dump_json(exclude_defaults=True) + "\n" for prompt in kept)
        write.write_text(lines, encoding="utf-8")
        reporter.say(f"{write}: {counted(len(kept), 'prompts')}, {len(offending):,} left out")
    if offending:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("contamination", help=_EXAMPLES)(contamination)
