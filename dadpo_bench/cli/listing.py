"""`dadpo-bench list` and `show`: what there is, without importing anything heavy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dadpo_bench import registry
from dadpo_bench.cli.annotations import written, written_type
from dadpo_bench.cli.options import JsonOption
from dadpo_bench.recipe import load_recipe, shipped


class Kind(StrEnum):
    """What can be listed."""

    tasks = "tasks"
    methods = "methods"
    judges = "judges"
    recipes = "recipes"


_REGISTRIES: dict[Kind, tuple[registry.Registry[Any], ...]] = {
    Kind.tasks: (registry.tasks,),
    Kind.methods: (registry.methods,),
    Kind.judges: (registry.judges, registry.backends, registry.templates, registry.parsers),
}
"""A judge that asks a chat model is made of a backend, a template and a parser."""


def _recipes() -> Iterable[dict[str, str]]:
    for name, path in shipped().items():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        yield {"name": name, "summary": content["summary"]}


def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: JsonOption = False) -> None:
    """List what is registered: tasks, methods, recipes, or judges with the parts they are made of.

    Example: dadpo-bench list methods
    """
    parts: dict[str, list[dict[str, Any]]] = (
        {"recipe": list(_recipes())}
        if kind is Kind.recipes
        else {part.noun: [entry.model_dump(mode="json") for entry in part] for part in _REGISTRIES[kind]}
    )
    if as_json:
        typer.echo(json.dumps([{"part": noun, **row} for noun, rows in parts.items() for row in rows], indent=1))
        return
    sized = kind is Kind.tasks
    table = Table("name", *(["prompts", "domain"] if sized else []), "summary", box=None, pad_edge=False)
    table.header_style = "bold"
    for noun, rows in parts.items():
        if len(parts) > 1:
            table.add_row(f"[bold]{noun}s[/bold]")
        for row in rows:
            more = [_held_out(row), row["domain"]] if sized else []
            table.add_row(str(row["name"]), *more, escape(str(row["summary"])))
    Console().print(table)


def _held_out(task: dict[str, Any]) -> str:
    """How many held-out prompts a task has; a question mark where nobody has counted."""
    return f"{task['prompts']['heldout']:,}" if "heldout" in task["prompts"] else "?"


def _fetched(entry: registry.Entry) -> dict[str, str]:
    """Of a task that was fetched: from which revision, and when."""
    if not isinstance(entry, registry.TaskEntry) or not entry.repository:
        return {}
    from dadpo_bench.tasks.sources import folder_of, note_of

    note = note_of(entry) or {}
    return {"kept_in": str(folder_of(entry))} | {name: note[name] for name in ("revision", "fetched") if name in note}


def _shown(value: Any) -> str:
    """A field of an entry in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(item["path"] if isinstance(item, dict) else str(item) for item in value)
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _fields(config: type[BaseModel]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "type": written_type(field.annotation),
            "default": None if field.is_required() else field.get_default(call_default_factory=True),
            "required": field.is_required(),
            "description": field.description or "",
        }
        for name, field in config.model_fields.items()
    ]


def show(
    kind: Annotated[Kind, typer.Argument(help="What kind of thing.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    as_json: JsonOption = False,
) -> None:
    """Show one entry: source, settings with types, defaults and units; of a judge's template the text.

    Example: dadpo-bench show methods dadpo
    """
    if kind is Kind.recipes:
        recipe = load_recipe(name).model_dump(mode="json", exclude_none=True)
        text = json.dumps(recipe, indent=1) if as_json else yaml.safe_dump(recipe, sort_keys=False)
        typer.echo(text.rstrip())
        return
    first, *_ = registries = _REGISTRIES[kind]
    entry = next((part for part in registries if name in part.names()), first)[name]
    fields = _fields(registry.config_class(entry, {})) if entry.config else []
    text = registry.packaged(entry.target).decode() if isinstance(entry, registry.TemplateEntry) else ""
    told = {**entry.model_dump(mode="json"), **_fetched(entry)}
    if as_json:
        whole = {**told, "settings": fields} | ({"text": text} if text else {})
        typer.echo(json.dumps(whole, indent=1, default=str))
        return
    console = Console()
    for key, value in told.items():
        if value not in ("", [], {}):
            console.print(f"[bold]{key}[/bold]  ", end="")
            console.print(_shown(value), markup=False, highlight=False)
    if fields:
        table = Table("setting", "type", "default", "meaning", header_style="bold")
        for field in fields:
            default = "required" if field["required"] else written(field["default"])
            table.add_row(*map(escape, (field["name"], field["type"], default, field["description"])))
        console.print(table)
    if text:
        console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands: dict[str, Callable[..., None]] = {"list": list_, "show": show}
    for name, command in commands.items():
        app.command(name)(command)
