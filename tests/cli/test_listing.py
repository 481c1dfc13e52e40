"""`list`, `show` and recipes: light, complete, typed."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from dadpo_bench import registry
from dadpo_bench.cli import app
from dadpo_bench.cli.annotations import written, written_type


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_listing_help_and_unknown_names_import_no_torch() -> None:
    script = (
        "import sys; sys.argv = ['dadpo-bench', *sys.argv[1:]]\n"
        "from dadpo_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'sqlalchemy', 'openai'} & set(sys.modules)"
    )
    for words in (
        ["--help"],
        ["list", "methods"],
        ["list", "judges", "--json"],
        ["list", "tasks"],
        ["run", "--help"],
        ["plan", "--help"],
        ["plan", "vicuna-7b-pruned20", "--gpu", "h100"],
        ["run", "dadop"],
        ["run", "dadpo", "--recipe", "smollm2-135m-prund20"],
        ["run", "dadpo", "--set", "methods.x.method=dadop"],
        ["run", "dadpo", "--until", "trian"],
        ["eval", "model", "--task", "general", "--judge", "pmy"],
    ):
        subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True)


def test_settings_are_shown_with_defaults_and_meaning() -> None:
    shown = json.loads(show("show", "methods", "dadpo", "--json").stdout)
    beta = next(s for s in shown["settings"] if s["name"] == "beta_teacher")
    assert beta["default"] == 0.1
    assert "1/nat" in beta["description"]


def test_what_is_shown_to_people_names_the_betas_and_their_source() -> None:
    shown = show("show", "methods", "dadpo").stdout
    for word in ("beta_reference", "beta_teacher", "0.1", "2506.15717"):
        assert word in shown


def test_every_kind_is_listed_with_a_summary_a_line() -> None:
    for kind, name in (("methods", "dadpo"), ("judges", "pmi"), ("tasks", "assistance"), ("recipes", "smollm2")):
        (line,) = [line for line in show("list", kind).stdout.splitlines() if line.strip().startswith(name)]
        assert len(line.split()) > 2


def test_judges_are_listed_with_their_templates_and_parsers() -> None:
    rows = json.loads(show("list", "judges", "--json").stdout)
    assert list(dict.fromkeys(row["part"] for row in rows)) == ["judge", "backend", "template", "parser"]
    named = {(row["part"], row["name"]) for row in rows}
    assert {
        ("judge", "chat-score"),
        ("judge", "reward"),
        ("backend", "endpoint"),
        ("backend", "local"),
        ("template", "five-level"),
        ("parser", "last-label"),
    } <= named
    text = show("list", "judges").stdout
    assert text.index("chat-score") < text.index("five-level") < text.index("last-label")
    assert "[[number]]" in text


def test_a_template_is_shown_with_its_text() -> None:
    assert "{answer_a}" in show("show", "judges", "pairwise").stdout
    assert "{answer_a}" in json.loads(show("show", "judges", "pairwise", "--json").stdout)["text"]


def test_every_listed_thing_can_be_shown() -> None:
    for kind in ("tasks", "methods", "judges", "recipes"):
        for entry in json.loads(show("list", kind, "--json").stdout):
            assert show("show", kind, entry["name"]).exit_code == 0


class Nested(BaseModel):
    rank: int
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (float, "float"),
        (float | None, "float | null"),
        (Optional[Literal["all", "last"]], "all | last | null"),  # noqa: UP045 - how pydantic keeps it
        (Literal[1, True, None], "1 | true | null"),
        (tuple[float, int] | None, "[float, int] | null"),
        (tuple[str, ...], "[str, …]"),
        (list[str | None], "[str | null, …]"),
        (Mapping[str, list[int]], "{str: [int, …], …}"),
        (Annotated[bool, "a note"], "bool"),
        (Nested | None, "{rank: int, kind: a | b} | null"),
        (Any, "anything"),
    ],
)
def test_a_type_is_shown_as_its_values_are_written(annotation: Any, shown: str) -> None:
    assert written_type(annotation) == shown


def test_values_are_shown_as_a_recipe_has_them() -> None:
    assert [*map(written, ("x", "", None, True, 1e-05, (1.0, 2.0)))] == [
        "x",
        '""',
        "null",
        "true",
        "1e-05",
        "[1.0, 2.0]",
    ]


@pytest.mark.parametrize("kind", ["methods", "judges"])
def test_no_setting_is_shown_with_pythons_own_words(kind: str) -> None:
    for entry in getattr(registry, kind):
        for setting in json.loads(show("show", kind, entry.name, "--json").stdout)["settings"]:
            assert not re.search(r"\.|None|Optional|Literal|tuple|Union", setting["type"]), setting


def test_a_setting_that_must_be_given_says_so() -> None:
    settings = json.loads(show("show", "judges", "chat", "--json").stdout)["settings"]
    assert [s["name"] for s in settings if s["required"]] == ["model"]
    (model,) = [line for line in show("show", "judges", "chat").stdout.splitlines() if line.startswith("│ model ")]
    assert "required" in model
