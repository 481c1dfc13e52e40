"""A panel before the bench: its members are asked as if alone, nothing is paid twice, and how they agree is told."""

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sqlalchemy import select
from typer.testing import CliRunner, Result

from dadpo_bench.cli import app
from dadpo_bench.engine import LocalEngine
from dadpo_bench.errors import UserError
from dadpo_bench.judging.comparisons import OpenJudge, construct_judge, note_judge
from dadpo_bench.leaderboard import render
from dadpo_bench.progress import silent
from dadpo_bench.scoring.agreement import accord
from dadpo_bench.stages.bench import Bench
from dadpo_bench.store import open_store, schema
from dadpo_bench.types import JudgeContext
from tests.judges.scripted_server import Act, fails, says, serving

PAIRS = [
    {"turns": ["One?"], "first": ["good"], "second": ["a much longer one"], "label": "first"},
    {"turns": ["Two?"], "first": ["bad"], "second": ["good"], "label": "second"},
    {"turns": ["Three?"], "first": ["good and long"], "second": ["bad"], "label": "first"},
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "people.jsonl"
    path.write_text("\n".join(map(json.dumps, PAIRS)))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def seats(url: str, *names: str, **settings: Any) -> str:
    members = [*names, {"judge": "chat:m", "settings": {"base_url": url, **settings}}]
    return f"members={json.dumps(members)}"


def stored(store: Path, table: Any, judge: str) -> list[Any]:
    with closing(open_store(str(store), create=False)) as opened, opened.read() as session:
        key = select(schema.Judge.key).where(schema.Judge.name == judge)
        return list(session.scalars(select(table).where(table.judge_key == key.scalar_subquery())))


def fair(number: int, body: dict[str, Any]) -> Act:
    """A judge that finds the word."""
    first, second = body["messages"][-1]["content"].split("Answer of assistant B")
    return says("[[A]]" if "good" in first else "[[B]]" if "good" in second else "[[C]]")


def test_a_run_is_judged_by_what_its_members_say_together(tiny_recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "x.sqlite3"
    run = ["run", "sft", "--recipe", tiny_recipe, "--store", store, "--json"]
    done = call(*run, "--judge", "panel:pmi+longer")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)

    ratings = {
        name: {r.response_key: r.value for r in stored(store, schema.Rating, name)} for name in ("pmi", "longer")
    }
    verdicts = stored(store, schema.Verdict, "panel:pmi+longer")
    sides: dict[tuple[str, str], float] = {}
    for verdict in verdicts:
        ours, theirs = verdict.contestant_response, verdict.baseline_response
        signs = [int(np.sign(given[ours] - given[theirs])) for given in ratings.values()]
        # Of two members each outcome that is not both's is a tie.
        expected = {1: "win", -1: "loss"}.get(signs[0], "tie") if signs[0] == signs[1] else "tie"
        words = [{1: "win", 0: "tie", -1: "loss"}[sign] for sign in signs]
        assert (verdict.outcome, verdict.preference, verdict.tokens) == (expected, None, 0)
        assert json.loads(verdict.raw) == [["pmi", words[0]], ["longer", words[1]]]
        sides[ours, theirs] = {"win": 1.0, "tie": 0.5, "loss": 0.0}[expected]
    assert len(verdicts) == len(sides)  # neither member sees an order
    assert {row["flip_rate"] for row in found["rows"]} == {None}

    with closing(open_store(str(store), create=False)) as opened:
        board = render(opened)
        with opened.read() as session:
            who = {c.key: c.name for c in session.scalars(select(schema.Contestant))}
            answers = {
                (who[a.contestant_key], a.prompt_key): a.response_key for a in session.scalars(select(schema.Answer))
            }
            proxy = session.scalars(select(schema.Judge).where(schema.Judge.name == "panel:pmi+longer")).one().proxy
    compared = {
        name: [(r, answers["teacher", prompt]) for (w, prompt), r in answers.items() if w == name]
        for name in ("sft", "student")
    }
    for row in found["rows"]:
        if row["contestant"] in compared:
            assert row["win_rate"] == pytest.approx(100 * np.mean([sides[p] for p in compared[row["contestant"]]]))

    # Canaries are left out of it.
    both = np.sign(
        [
            [given[ours] - given[theirs] for pair in compared.values() for ours, theirs in pair]
            for given in ratings.values()
        ]
    )
    (agree,) = found["members_agree"]
    assert agree["comparisons"] == both.shape[1] == 8
    assert agree["krippendorff_alpha"] == pytest.approx(krippendorff.alpha(both, level_of_measurement="nominal"))
    share = 100 * float(np.mean(both[0] == both[1]))
    assert agree["pairs"] == [{"first": "longer", "second": "pmi", "share": pytest.approx(share)}]
    line = f"Krippendorff's α {agree['krippendorff_alpha']:.2f} over 8 comparisons; longer–pmi {share:.0f} %".replace(
        "-", "−"
    )
    assert f"embers agree: {line}" in done.stderr
    assert f"- **note**: Members agree: {line}." in board
    assert "- members of the panel: longer, pmi (majority)" in board
    assert "orders: " not in board
    assert proxy
    assert "`panel:pmi+longer` is a proxy" in board

    # Members are judges like others: alone they are asked nothing more, and in another order it is the same panel.
    before = {r.response_key: r.asked for r in stored(store, schema.Rating, "pmi")}
    assert call(*run, "--judge", "pmi").exit_code == 0
    assert {r.response_key: r.asked for r in stored(store, schema.Rating, "pmi")} == before
    again = json.loads(call(*run, "--judge", "panel:longer+pmi").stdout)
    assert again == found


def test_a_member_that_fails_half_way_is_asked_only_what_is_missing(pairs: Path, tmp_path: Path) -> None:
    store, state = tmp_path / "x.sqlite3", {"broken": True}

    def script(number: int, body: dict[str, Any]) -> Act:
        return fails(401) if state["broken"] and number >= 4 else fair(number, body)

    with serving(script) as server:
        members = seats(server.url, "longer", concurrency=1)
        command = ["judge-eval", "panel", "--set", members, "--pairs", pairs, "--store", store, "--json"]
        failed = call(*command)
        assert failed.exit_code == 2
        assert "401" in failed.stderr
        assert len(server.bodies) == 5  # six questions; the fifth ended it
        assert len(stored(store, schema.Rating, "longer")) == 6
        kept = {(v.contestant_response, v.order) for v in stored(store, schema.Verdict, "chat:m")}
        assert len(kept) == 4
        assert not stored(store, schema.Verdict, "panel:longer+chat:m")
        state["broken"] = False
        done = call(*command)
        assert done.exit_code == 0, done.output
        assert len(server.bodies) == 5 + 2
        assert call(*command).exit_code == 0
        assert len(server.bodies) == 5 + 2
    (found,) = json.loads(done.stdout)["sets"]
    # The first of a pair is the first by the alphabet, thrice the one that is not good; `longer` likes one of them.
    outcomes = Counter(v.outcome for v in stored(store, schema.Verdict, "panel:longer+chat:m"))
    assert outcomes == {"tie": 2, "loss": 4}
    # The chat model finds the good one; so does `longer` in two of three.
    assert found["members_agree"]["pairs"][0]["share"] == pytest.approx(200 / 3)
    # A panel's cost is its members': 99 tokens a call, and `longer` has none.
    assert found["tokens_per_1000"] == 99_000
    assert found["agreement"]["share"] == pytest.approx(200 / 3)


def test_what_a_member_could_not_say_is_told_by_its_name_and_asked_again(pairs: Path, tmp_path: Path) -> None:
    store, state = tmp_path / "x.sqlite3", {"words": "I cannot decide."}

    def script(number: int, body: dict[str, Any]) -> Act:
        return says(state["words"]) if "Two?" in body["messages"][-1]["content"] else fair(number, body)

    with serving(script) as server:
        command = ["judge-eval", "panel", "--set", seats(server.url, "longer"), "--pairs", pairs, "--store", store]
        told = call(*command)
        assert "2 unscored (chat:m: unparsable); run again to ask once more" in told.stderr
        assert "Krippendorff's α of the members" in told.stdout
        assert "chat:m and longer agree" in told.stdout
        verdicts = stored(store, schema.Verdict, "panel:longer+chat:m")
        assert {v.reason for v in verdicts if v.outcome == "unscored"} == {"chat:m: unparsable"}
        asked, state["words"] = len(server.bodies), "[[C]]"
        again = call(*command)
        assert len(server.bodies) == asked + 2
        assert "unscored (" not in again.stderr
    outcomes = Counter(v.outcome for v in stored(store, schema.Verdict, "panel:longer+chat:m"))
    assert "unscored" not in outcomes


def test_a_panel_is_tried_on_canaries_and_asked_again(tiny_recipe: Path, pairs: Path, tmp_path: Path) -> None:
    store = tmp_path / "x.sqlite3"
    assert call("run", "sft", "--recipe", tiny_recipe, "--store", store, "-q", "--judge", "longer").exit_code == 0
    with serving(says("[[A]]")) as server:
        command = ["judge-eval", "panel", "--set", seats(server.url, "longer"), "--store", store]
        report = json.loads(call(*command, "--json").stdout)["canaries"]
        assert report["members_agree"]["comparisons"] == 2 * 8  # two prompts, seven canaries and the teacher
        assert "members agree: Krippendorff's α" in call(*command).stdout
        (found,) = json.loads(call(*command, "--pairs", pairs, "--retest", 3, "--json").stdout)["sets"]
        assert found["retest"]["share"] == 100


def test_what_is_to_be_said_of_a_member_is_said_by_its_name(
    tiny_recipe: Path, tmp_path: Path, tiny_models: tuple[Path, Path]
) -> None:
    (tmp_path / "qwen-tiny").symlink_to(tiny_models[0])
    recipe = json.loads(tiny_recipe.read_text())
    recipe["teacher"]["model"] = str(tmp_path / "qwen-tiny")
    tiny_recipe.write_text(json.dumps(recipe))

    def drifting(number: int, body: dict[str, Any]) -> Act:
        answer = {**json.loads(says("[[A]]").body), "model": "old" if number < 5 else "qwen-new"}
        return Act(json.dumps(answer).encode())

    store = tmp_path / "x.sqlite3"
    with serving(drifting) as server:
        members = f"judge_settings.{seats(server.url, 'longer')}"
        command = ["run", "sft", "--recipe", tiny_recipe, "--store", store, "-q", "--judge", "panel"]
        assert call(*command, "--set", members).exit_code == 0
    with closing(open_store(str(store), create=False)) as opened:
        board = render(opened)
    assert "- **note**: The member `chat:m` is of a contestant's family: qwen." in board
    assert "The endpoint answered as 2 models, so the member `chat:m` changed on the way: qwen-new (" in board


def noted(bench: Bench, members: Any, **settings: Any) -> OpenJudge:
    context = JudgeContext(Path, None)
    return note_judge(bench, "panel", *construct_judge("panel", {"members": members, **settings}, context))


def test_a_panel_is_who_sits_on_it_and_how_they_decide(tmp_path: Path) -> None:
    def chat(model: str, **settings: Any) -> dict[str, Any]:
        return {"judge": f"chat:{model}", "settings": {"base_url": "http://127.0.0.1:1/v1", **settings}}

    with closing(open_store(str(tmp_path / "x.sqlite3"))) as store:
        bench = Bench(store, LocalEngine(), silent())
        one = noted(bench, ["longer", chat("a"), chat("b")])
        assert one.name == "panel:longer+chat:a+chat:b"
        assert noted(bench, [chat("b"), "longer", chat("a", concurrency=2)]).key == one.key
        others = [
            noted(bench, ["longer", chat("a"), chat("b")], combine="mean"),
            noted(bench, ["longer", chat("a")]),
            noted(bench, ["longer", chat("a"), chat("b", temperature=0.5)]),
        ]
        assert len({judge.key for judge in [one, *others]}) == 4
        twins = noted(bench, [chat("a"), chat("a", temperature=0.5)])
        assert twins.name == "panel:" + "+".join(f"chat:a {member.key[:6]}" for member in twins.members)
        assert len(noted(bench, [chat("a" * 150), chat("b" * 150)]).name) == 200  # what a database's column takes
        alone = note_judge(bench, "longer", *construct_judge("longer", {}, JudgeContext(Path, None)))
        assert one.members[0].key == alone.key
        with pytest.raises(UserError, match="judge 'chat:a' is twice on the panel"):
            noted(bench, [chat("a"), chat("a", concurrency=2)])


def test_agreement_is_krippendorffs_and_the_share_of_equal_sides() -> None:
    a, b, c = [1, 1, 0.5, 0, 0.9, np.nan], [1, 0, 0.5, 0, 1, 1], [1, 1, 1, np.nan, 0.2, np.nan]
    found = accord(["a", "b", "c"], np.array([a, b, c]))
    sides = np.sign(np.array([a, b, c]) - 0.5)
    assert found.comparisons == 5  # of the last one alone said something
    assert found.krippendorff_alpha == pytest.approx(krippendorff.alpha(sides, level_of_measurement="nominal"))
    # Of five, a and b differ on the second. a and c agree on two of four, b and c on one.
    assert [(one, other, share) for one, other, share in found.pairs] == [
        ("a", "b", 80),
        ("a", "c", 50),
        ("b", "c", 25),
    ]
    assert found.pairs[0][2] == pytest.approx(100 * accuracy_score(sides[0, :5], sides[1, :5]))
    assert str(found).startswith(
        f"Krippendorff's α {found.krippendorff_alpha:.2f} over 5 comparisons; a–b 80 %, a–c 50"
    )
    nothing = accord(["a", "b"], np.full((2, 3), np.nan))
    assert str(nothing) == "Krippendorff's α – over 0 comparisons; a–b –"


def test_a_dry_run_shows_each_members_questions_and_needs_no_key(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    command = ["run", "sft", "--recipe", tiny_recipe, "--store", tmp_path / "x.sqlite3"]
    shown = call(*command, "--judge", "panel:longer+chat:gpt-4o+chat-score:gpt-4o-mini", "--dry-run").stdout
    assert "--- question 1 to chat:gpt-4o ---" in shown
    assert "--- question 2 to chat-score:gpt-4o-mini ---" in shown
    assert "chat:gpt-4o, if nothing is stored: " in shown
    assert "chat-score:gpt-4o-mini, if nothing is stored: " in shown
    assert "to longer" not in shown
    assert not (tmp_path / "x.sqlite3").exists()


@pytest.mark.parametrize("option", ["--budget-usd", "--max-calls", "--concurrency", "--template"])
def test_an_option_of_a_members_is_refused_for_the_whole(
    option: str, tiny_recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = call("run", "sft", "--recipe", tiny_recipe, "--judge", "panel:pmi+longer", option, "1")
    said = done.stderr + capfd.readouterr().err
    assert done.exit_code == 2
    assert "set it in a member's settings, judge_settings: {members: [{judge: NAME" in said


def test_a_members_template_is_found_beside_the_recipe(tiny_recipe: Path, tmp_path: Path) -> None:
    template = Path(__file__).parents[2] / "judges" / "templates" / "pairwise.toml"
    (tmp_path / "mine.toml").write_bytes(template.read_bytes())
    members = ["longer", {"judge": "chat:gpt-4o", "settings": {"template": "mine.toml"}}]
    recipe = {**json.loads(tiny_recipe.read_text()), "judge": "panel", "judge_settings": {"members": members}}
    tiny_recipe.write_text(json.dumps(recipe))
    shown = call("run", "sft", "--recipe", tiny_recipe, "--store", tmp_path / "x.sqlite3", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "--- question 1 to chat:gpt-4o ---" in shown.stdout
