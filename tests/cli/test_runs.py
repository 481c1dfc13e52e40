"""`runs` and `diff`: on the committed stores, and on stores made by hand, by hostile hands too."""

import json
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.cli.sparklines import sparkline
from dadpo_bench.store import Store, schema
from tests.conftest import Run, environment, program
from tests.empty_store import empty_store

ROOT = Path(__file__).parents[2]
REFERENCE, METHODS = ROOT / "results/reference.sqlite3", ROOT / "results/methods.sqlite3"
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
ARGUMENTS = {"methods": ["dadpo"], "recipe": "mine.yaml", "set": [], "seeds": 2, "judge": "pmi"}
RECIPE = {"name": "mine", "seed": 0, "teacher": {"model": "t"}, "judge": "pmi"}
HOSTILE = "a[/b][red]\x1b[31m\u202e\nb"


def call(*words: object, width: int = 200) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(app, list(map(str, words)))


def store_of(path: Path, *runs: Mapping[str, Any], protocols: tuple[str, ...] = ("p",)) -> Store:
    """A store of these runs, each of the first protocol, finished and without stages unless it says otherwise."""
    store = empty_store(path)
    with store.write() as session:
        session.add_all(schema.Protocol(key=key, name="mine", settings={}) for key in protocols)
        session.flush()
        for given in runs:
            row = {"protocol_key": protocols[0], "started": BEGAN, "finished": BEGAN + timedelta(hours=1)}
            row |= {"arguments": ARGUMENTS, "recipe": RECIPE, "environment": {"device": "cpu"}} | dict(given)
            stages = row.pop("stages", [])
            run = schema.Run(**row)
            session.add(run)
            session.flush()
            session.add_all(
                schema.StageTime(run_id=run.id, position=i, stage=stage, seconds=90.0, peak_bytes=2 * 10**9)
                for i, stage in enumerate(stages)
            )
    return store


def trained(store: Store, curves: Mapping[str, list[Any]], settings: Mapping[str, Any], **made: Any) -> None:
    """A contestant of the protocol `p` and how its checkpoint was made: a metric's values by step."""
    with store.write() as session:
        session.add(schema.Model(key="m", name="dadpo", parameters=1, config={}))
        session.flush()
        session.add(
            schema.Contestant(
                key="c", protocol_key="p", name="dadpo", kind="method", seed=0, settings=settings, model_key="m"
            )
        )
        row = {"key": "d", "kind": "train", "model_key": "m", "settings": settings, "seconds": 75.0}
        session.add(schema.Derivation(**row | {"record": {"steps": 3, "tokens": 1200}, **made}))
        for step in range(max(map(len, curves.values()))):
            values = {name: values[step] for name, values in curves.items() if step < len(values)}
            session.add(schema.Metric(derivation_key="d", step=step + 1, values=values))


def score(store: Store, protocol: str, rate: float, *, task: str = "t", judge: str = "j", name: str = "dadpo") -> None:
    """A row of a board; `task` and `judge` are keys whose first letter is the name."""
    with store.write() as session:
        session.merge(schema.Task(key=task, name=task[0], domain="in", split="heldout"))
        session.merge(schema.Judge(key=judge, name=judge[0], kind="pairwise", proxy=False, identity={"k": judge}))
        session.flush()
        values = {"win_rate": rate, "ci_low": rate - 10, "ci_high": rate + 10}
        place = {"protocol_key": protocol, "judge_key": judge, "task_key": task, "baseline": "teacher"}
        session.add(schema.Score(**place, contestant=name, values=values))


# --- runs ---


def test_a_line_for_each_run_says_what_was_asked_and_how_far_it_came() -> None:
    stopped, finished = (line for line in call("runs", "--store", REFERENCE).stdout.splitlines() if "2026-" in line)
    for said in ("1", "2026-11-24 18:30", "smollm2-135m-pruned20", "sft kd dpo dpo-matched dadpo", "3", "pmi"):
        assert said in stopped
    assert "stopped, at signals" in stopped
    for said in ("finished", "44.2 min", "7.0 GB"):
        assert said in finished


def test_runs_for_machines() -> None:
    _, run = json.loads(call("runs", "--store", REFERENCE, "--json").stdout)
    assert (run["id"], run["state"]) == (2, {"finished": True, "stage": "score", "left": False, "running": False})
    assert run["started"] == "2026-11-24T18:49:00.084349+00:00"
    assert run["peak_bytes"] == 6955913216
    assert run["seconds"] == pytest.approx(2649.9, abs=0.1)


@pytest.mark.parametrize(
    ("stages", "finished", "said"),
    [
        ([], None, "running or stopped, at models"),
        (["models", "teacher-responses"], None, "running or stopped, at dsft"),
        (["models", "teacher-responses", "dsft"], BEGAN, "finished up to dsft"),
        (["stranger"], None, "running or stopped, at models"),
    ],
)
def test_the_state_is_told_from_the_stages(
    stages: list[str], finished: datetime | None, said: str, tmp_path: Path
) -> None:
    store = store_of(tmp_path / "x.sqlite3", {"stages": stages, "finished": finished})
    assert said in call("runs", "--store", store.name).stdout


def test_a_store_that_was_only_imported_into_has_no_runs(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3")
    shown = call("runs", "--store", store.name)
    assert (shown.exit_code, "has no runs" in shown.stdout) == (0, True)
    assert json.loads(call("runs", "--store", store.name, "--json").stdout) == []
    for words in (["runs", "show", "1"], ["diff", "1", "2"]):
        missing = call(*words, "--store", store.name)
        assert (missing.exit_code, missing.stderr.count("\n"), "has no runs" in missing.stderr) == (2, 1, True)


def test_an_unknown_run_names_those_there_are() -> None:
    for words in (["runs", "show", "7"], ["diff", "1", "7"], ["diff", "7", "1"]):
        unknown = call(*words, "--store", REFERENCE)
        assert (unknown.exit_code, unknown.stderr.count("\n")) == (2, 1)
        assert "unknown run '7'; known: 1, 2" in unknown.stderr


def test_a_published_store_is_read_without_a_trace(tmp_path: Path) -> None:
    store = Path(shutil.copy(REFERENCE, tmp_path / "published.sqlite3"))
    before = store.read_bytes()
    for words in (["runs"], ["runs", "show", "2"], ["diff", "1", "2"]):
        assert call(*words, "--store", store).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["published.sqlite3"]
    assert store.read_bytes() == before


def test_no_torch_is_imported() -> None:
    script = (
        "import sys; sys.argv = ['dadpo-bench', *sys.argv[1:]]\n"
        "from dadpo_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'openai'} & set(sys.modules)"
    )
    for words in (["runs"], ["runs", "show", "2"], ["diff", "1", "2", "--against", METHODS]):
        command = [sys.executable, "-c", script, *map(str, words), "--store", str(REFERENCE)]
        subprocess.run(command, check=True, capture_output=True)


# --- runs show ---


def test_one_run_is_shown_with_its_command_settings_environment_and_stages() -> None:
    shown = call("runs", "show", "2", "--store", REFERENCE).stdout
    for said in (
        "dadpo-bench run sft kd dpo dpo-matched dadpo --seeds 3\n",
        "beta_reference: 0.1, beta_teacher: 0.1",
        "torch: 2.13.0+cpu",
        "float32/bfloat16",
        "c0f50ef7df60",
    ):
        assert said in shown
    (stage,) = [line for line in shown.splitlines() if line.startswith("│signals")]
    assert "2.2 min" in stage
    assert "2.0 GB" in stage


def test_every_seed_of_a_contestant_has_its_curves() -> None:
    shown = call("runs", "show", "2", "--store", REFERENCE).stdout
    blocks = {block.partition(":")[0]: block for block in shown.split("\n\n")}
    for seed in range(3):
        block = blocks[f"dadpo, seed {seed}"]
        names = ("loss", "margin", "accuracy", "chosen log prob", "rejected log prob", "learning rate")
        for name in (*names, "tokens per second", "validation loss", "validation margin"):
            assert f"\n  {name} " in block
    assert "dadpo, seed 0: 24 steps, 12,971 tokens, 2.2 min" in blocks["dadpo, seed 0"]
    assert "1.5e-06 → 3e-07" in blocks["dadpo, seed 0"]
    assert list(blocks).index("sft, seed 0") < list(blocks).index("dadpo, seed 0")


def test_one_run_for_machines_holds_every_metric() -> None:
    shown = json.loads(call("runs", "show", "2", "--store", REFERENCE, "--json").stdout)
    assert len(shown["trainings"]) == 5 * 3
    dadpo = next(t for t in shown["trainings"] if (t["name"], t["seed"]) == ("dadpo", 0))
    assert (dadpo["steps"], dadpo["settings"]["beta_teacher"]) == (24, 0.1)
    assert dadpo["curves"]["grad_norm"]["steps"] == list(range(1, 25))
    assert len(dadpo["curves"]["validation_loss"]["values"]) == 3
    assert "preflight" in dadpo["record"]


def test_options_before_the_subcommand_count_too() -> None:
    assert json.loads(call("runs", "--store", METHODS, "--json", "show", "1").stdout)["judge"] == "pmi"


def test_a_terminal_without_block_characters_gets_the_figures_alone() -> None:
    environ = {**environment(), "PYTHONIOENCODING": "ascii"}
    shown = program("runs", "show", "1", "--store", METHODS, env=environ, cwd=ROOT).stdout
    assert "learning rate                   1.5e-06 to 3e-07" in shown
    assert "?" not in shown.split("ipo, seed 0")[1]


def test_contestants_of_one_name_are_told_apart_as_on_the_board(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {})
    trained(store, {"loss": [3, 2, 1]}, {"method": "dadpo", "beta_teacher": 0.1})
    with store.write() as session:
        settings = {"method": "dadpo", "beta_teacher": 0.3}
        place = {"protocol_key": "p", "kind": "method", "seed": 0, "settings": settings, "model_key": "other"}
        session.add(schema.Contestant(key="c2", name="dadpo", **place))
    assert "\ndadpo (beta_teacher=0.1), seed 0: 3 steps" in call("runs", "show", "1", "--store", store.name).stdout


def test_a_checkpoint_of_other_settings_is_not_taken_for_the_contestants(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {})
    trained(store, {"loss": [3, 2, 1]}, {"method": "dadpo"})
    with store.write() as session:
        session.get_one(schema.Derivation, "d").settings = {"method": "dpo"}
    assert "no trainings yet" in call("runs", "show", "1", "--store", store.name).stdout


def test_what_is_no_number_leaves_a_gap_in_its_curve(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {})
    trained(store, {"loss": [8, math.nan, 1], "margin": ["x", None, True]}, {"method": "dadpo"})
    shown = call("runs", "show", "1", "--store", store.name).stdout
    assert "  loss  █ ▁  8 → 1" in shown
    assert "margin" not in shown
    (training,) = json.loads(call("runs", "show", "1", "--store", store.name, "--json").stdout)["trainings"]
    assert training["curves"] == {"loss": {"steps": [1, 2, 3], "values": [8, None, 1]}}


# --- the command that repeats a run ---


def command_of(tmp_path: Path, **arguments: Any) -> list[str]:
    store = store_of(tmp_path / "x.sqlite3", {"arguments": {**ARGUMENTS, **arguments}})
    shown = json.loads(call("runs", "show", "1", "--store", store.name, "--json").stdout)["command"]
    *words, option, place = shlex.split(shown)
    assert (option, place) == ("--store", store.name)
    return words


def test_the_command_says_all_that_was_asked(tmp_path: Path) -> None:
    changes = ["methods.dadpo.beta_teacher=0.2", "methods.ipo={method: ipo, epochs: 1}"]
    words = command_of(tmp_path, set=changes, data="my files", until="dsft", launch="--num_processes 2")
    assert words == [
        *("dadpo-bench", "run", "dadpo", "--seeds", "2", "--recipe", "mine.yaml", "--judge", "pmi"),
        *("--data", "my files", "--until", "dsft", "--launch", "--num_processes 2"),
        *("--set", changes[0], "--set", changes[1]),
    ]


def test_a_shipped_recipes_own_judge_is_not_said(tmp_path: Path) -> None:
    words = command_of(tmp_path, recipe="vicuna-7b-pruned20", judge="chat", seeds=1)
    assert words == ["dadpo-bench", "run", "dadpo", "--recipe", "vicuna-7b-pruned20"]


def test_a_judge_chosen_by_set_keeps_the_recipes_settings(tmp_path: Path) -> None:
    assert "--judge" not in command_of(tmp_path, set=["judge=longer"], judge="longer")


def test_what_a_shell_or_terminal_would_obey_is_quoted(tmp_path: Path) -> None:
    assert "$(rm -rf ~); `x`" in command_of(tmp_path, set=["$(rm -rf ~); `x`"])
    store = store_of(tmp_path / "y.sqlite3", {"arguments": {**ARGUMENTS, "set": ["a='\x1b[2J"]}})
    assert r"--set $'a=\'\U0000001b[2J'" in call("runs", "show", "1", "--store", store.name).stdout


def test_a_run_without_noted_arguments_has_no_command(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {"arguments": {}})
    assert "its arguments were not noted" in call("runs", "show", "1", "--store", store.name).stdout


def test_the_command_of_a_real_run_is_the_one_that_was_typed(bench: Run, tiny_recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "own.sqlite3"
    words = ["run", "dadpo", "--seeds", "2", "--recipe", str(tiny_recipe), "--judge", "longer", "--until", "models"]
    words += ["--set", "methods.dadpo.beta_teacher=0.2", "--store", str(store)]
    assert bench(*words).returncode == 0
    shown = json.loads(call("runs", "show", "1", "--store", store, "--json").stdout)
    assert shlex.split(shown["command"]) == ["dadpo-bench", *words]
    assert shown["state"] == {"finished": True, "stage": "models", "left": False, "running": False}
    assert shown["settings"]["methods"]["dadpo"]["beta_teacher"] == 0.2


# --- diff ---


def test_settings_that_differ_are_named_by_dotted_key_and_others_left_out(tmp_path: Path) -> None:
    recipe = {**RECIPE, "methods": {"dadpo": {"beta_teacher": 0.1, "epochs": 1}}, "judge_settings": {}, "orders": None}
    other = {**RECIPE, "methods": {"dadpo": {"beta_teacher": 0.3, "epochs": 1}}, "teacher": {"model": "u"}, "new": 1}
    machine = {"device": "cpu", "versions": {"torch": "1"}}
    store = store_of(
        tmp_path / "x.sqlite3",
        {"recipe": recipe, "environment": machine},
        {"recipe": other, "environment": {**machine, "versions": {"torch": "2"}}},
    )
    shown = call("diff", "1", "2", "--store", store.name).stdout
    recipes, rest = shown.split("\nrecipe\n")[1].split("\narguments\n")
    assert recipes.split("\n")[:-1] == [
        "  teacher.model: t → u",
        "  methods.dadpo.beta_teacher: 0.1 → 0.3",
        "  new: not set → 1",
    ]
    arguments, rest = rest.split("\nenvironment\n")
    assert arguments == "  the same\n"
    assert rest.startswith("  versions.torch: 1 → 2\n")


def test_runs_of_one_protocol_ended_on_one_board() -> None:
    shown = call("diff", "1", "2", "--store", REFERENCE).stdout
    assert "both runs ended on one board" in shown
    assert "code: c251f8523c8b → c0f50ef7df60" in shown
    for against in ([], ["--against", REFERENCE.parent / ".." / "results" / REFERENCE.name]):
        found = json.loads(call("diff", "1", "2", "--store", REFERENCE, *against, "--json").stdout)
        assert (found["one_board"], found["scores"], found["recipe"]) == (True, [], [])


def test_scores_of_two_protocols_stand_side_by_side(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {}, {"protocol_key": "q"}, protocols=("p", "q"))
    score(store, "p", 30)
    score(store, "q", 40)
    score(store, "q", 20, name="kd")
    lines = call("diff", "1", "2", "--store", store.name).stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert cells == [["dadpo", "t", "j", "30.0 (20–40)", "40.0 (30–50)"], ["kd", "t", "j", "–", "20.0 (10–30)"]]


def test_rows_of_other_prompts_or_another_judge_are_told(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {}, {"protocol_key": "q"}, protocols=("p", "q"))
    score(store, "p", 30)
    score(store, "q", 40, task="t2", judge="j2")
    shown = call("diff", "1", "2", "--store", store.name).stdout
    assert "30.0 (20–40)│40.0 (30–50)" in shown.replace(" ", "").replace("(", " (")
    assert "task t: its prompts are not the same in both" in shown
    assert "judge j: its settings are not the same in both" in shown


def test_two_judges_of_one_name_each_meet_themselves(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {}, {"protocol_key": "q"}, protocols=("p", "q"))
    for protocol, rate in (("p", 30), ("q", 40)):
        score(store, protocol, rate, judge="j1")
        score(store, protocol, rate + 5, judge="j2")
    found = json.loads(call("diff", "1", "2", "--store", store.name, "--json").stdout)["scores"]
    assert [(row["first"]["win_rate"], row["second"]["win_rate"]) for row in found] == [(30, 40), (35, 45)]
    assert all(row["same_judge"] for row in found)


def test_the_second_run_may_be_another_stores() -> None:
    shown = call("diff", "2", "1", "--store", REFERENCE, "--against", METHODS).stdout
    assert "methods.ipo.method: not set → ipo" in shown
    assert "seeds: 3 → 1" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("│dadpo ") and "│assistance│" in line]
    assert "27.8 (17–40)" in row
    assert "22.9 (12–35)" in row


def test_where_nothing_was_scored_it_says_so(tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", {}, {"protocol_key": "q"}, protocols=("p", "q"))
    assert "neither run was scored" in call("diff", "1", "2", "--store", store.name).stdout


# --- hostile stores ---


@pytest.mark.parametrize(
    "run",
    [
        {
            "recipe": {"name": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}, "methods": {HOSTILE: {HOSTILE: "x" * 10**6}}},
            "arguments": {"methods": [HOSTILE], "recipe": HOSTILE, "set": [HOSTILE], "seeds": 1, "judge": HOSTILE},
            "environment": {HOSTILE: {HOSTILE: HOSTILE}},
            "stages": [HOSTILE],
        },
        {"recipe": [], "arguments": {"methods": "dadpo", "set": 1, "seeds": "x", "judge": []}, "environment": 3},
        {
            "recipe": {"methods": [1], "name": None},
            "arguments": {"methods": [1, None], "data": {}},
            "environment": None,
        },
    ],
    ids=["hostile text", "no mappings", "odd values"],
)
def test_no_text_of_a_store_is_obeyed(run: dict[str, Any], tmp_path: Path) -> None:
    store = store_of(tmp_path / "x.sqlite3", run, {"protocol_key": "q"}, protocols=("p", "q"))
    trained(store, {"loss": [1, 2]}, {"method": HOSTILE}, record={"steps": HOSTILE, "tokens": None})
    for number, protocol in enumerate("pq"):
        score(store, protocol, 10, task=f"{HOSTILE}{number}", judge=HOSTILE, name=HOSTILE)
    for words in (["runs"], ["runs", "show", "1"], ["diff", "1", "2"]):
        for width in (60, 200):
            shown = call(*words, "--store", store.name, width=width)
            assert (shown.exception, shown.exit_code) == (None, 0)
            assert not {"\x1b", "\u202e"} & set(shown.stdout)
            assert max(map(len, shown.stdout.splitlines())) < 3000
        json.loads(call(*words, "--store", store.name, "--json").stdout)


# --- sparklines ---


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([7, 0], "█▁"),
        ([5, 5, 5], "▄▄▄"),
        ([math.nan, 1, math.inf, 2], " ▁ █"),
        ([-1e308, 1e308, 1e308], "▁██"),
        ([], ""),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def test_a_long_curve_is_drawn_by_means() -> None:
    assert sparkline([0, 2, 6, 8], width=2) == "▁█"  # means 1 and 7
    assert len(sparkline(list(range(1000)))) == 40
