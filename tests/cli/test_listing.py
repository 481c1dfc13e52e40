"""`list`, `show` and recipes: light, complete, typed."""

import json
import subprocess
import sys

from typer.testing import CliRunner, Result

from dadpo_bench.cli import app


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_listing_help_and_a_gpu_that_is_not_known_import_no_torch() -> None:
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
    assert list(dict.fromkeys(row["part"] for row in rows)) == ["judge", "template", "parser"]
    named = {(row["part"], row["name"]) for row in rows}
    assert {("judge", "chat-score"), ("template", "five-level"), ("parser", "last-label")} <= named
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
