"""`list`, `show` and recipes: light, complete, typed."""

import json
import subprocess
import sys

from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.recipe import load_recipe


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_listing_and_help_import_no_torch() -> None:
    script = (
        "import sys; sys.argv = ['dadpo-bench', *sys.argv[1:]]\n"
        "from dadpo_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'sqlalchemy', 'openai'} & set(sys.modules)"
    )
    for words in (["--help"], ["list", "methods"], ["list", "judges", "--json"], ["list", "tasks"], ["run", "--help"]):
        subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True)


def test_settings_are_shown_with_defaults_and_meaning() -> None:
    shown = json.loads(show("show", "methods", "dadpo", "--json").stdout)
    beta = next(s for s in shown["settings"] if s["name"] == "beta_teacher")
    assert beta["default"] == 0.1
    assert "1/nat" in beta["description"]


def test_every_listed_thing_can_be_shown() -> None:
    for kind in ("tasks", "methods", "judges", "recipes"):
        for entry in json.loads(show("list", kind, "--json").stdout):
            assert show("show", kind, entry["name"]).exit_code == 0


def test_a_set_value_reaches_the_recipe_with_its_type() -> None:
    recipe = load_recipe(changes=["methods.dadpo.beta_teacher=0.25", "prompts.train=7"])
    assert recipe.method_settings("dadpo")["beta_teacher"] == 0.25
    assert recipe.prompts.train == 7


def test_a_beta_does_not_change_the_protocol_and_the_students_data_does() -> None:
    plain, other_beta, other_data = (
        load_recipe(changes=changes).protocol_key
        for changes in ([], ["methods.dadpo.beta_teacher=0.25"], ["prompts.train=7"])
    )
    assert plain == other_beta != other_data
