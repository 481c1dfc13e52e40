"""The report of a living store: served to this machine alone, following what is written, searched by text."""

import json
import signal
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select
from typer.testing import CliRunner

from dadpo_bench.cli import app
from dadpo_bench.history import runs
from dadpo_bench.progress import silent
from dadpo_bench.report import Site
from dadpo_bench.report.serving import Now
from dadpo_bench.report.stamp import Stamp
from dadpo_bench.stages import Stage
from dadpo_bench.store import open_store, schema
from dadpo_bench.watching import Watched
from tests.report.browsers import copied, needs_chromium, serving


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("view") / "x.sqlite3")


@pytest.fixture(scope="module")
def served(store: Path) -> Iterator[str]:
    with serving(store) as (address, _):
        yield address


def got(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, dict(refused.headers), refused.read().decode()


def test_pages_come_with_a_policy_that_lets_nothing_in(served: str) -> None:
    status, headers, page = got(served)
    assert (status, "<h1>Overview</h1>" in page) == (200, True)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "answered"),
    [("evil.example", False), ("localhost:1", True), ("127.0.0.1", True), ("[::1]:8765", True), ("", False)],
)
def test_other_names_for_this_address_are_refused(served: str, host: str, answered: bool) -> None:
    assert got(served, Host=host)[0] == (200 if answered else 400)


def test_what_a_judge_has_said_is_there_before_it_is_scored(store: Path) -> None:
    with closing(open_store(str(store))) as opened, opened.read() as session:
        session.execute(delete(schema.Score))
        site = Site(session, "x", live=Stamp("1", "1"))
        assert len(site.comparisons) == 1_520
        assert "dadpo" in site.content("index.html")
        session.rollback()


def test_judges_of_one_name_are_told_apart(store: Path) -> None:
    with closing(open_store(str(store))) as opened, opened.read() as session:
        first = session.scalars(select(schema.Judge)).one()
        session.add(schema.Judge(key="f" * 32, name=first.name, kind=first.kind, proxy=True, identity={}))
        session.flush()
        score = session.scalars(select(schema.Score)).first()
        assert score is not None
        place = {name: getattr(score, name) for name in ("protocol_key", "task_key", "baseline", "contestant")}
        session.add(schema.Score(**place, judge_key="f" * 32, values={}))
        session.flush()
        names = {section.judge for section in Site(session, "x").sections}
        assert names == {f"pmi {first.key[:6]}", "pmi ffffff"}
        session.rollback()


@pytest.mark.parametrize("path", ["nothing.html", "..%2f..%2fx.sqlite3", "data/part-9999.js", "static/report.css"])
def test_what_is_no_page_is_not_found(served: str, path: str) -> None:
    assert got(f"{served}{path}")[0] == 404


def test_nothing_can_be_sent(served: str) -> None:
    request = urllib.request.Request(f"{served}index.html", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=30)


def test_words_are_found_wherever_they_stand_in_a_comparison(served: str, store: Path) -> None:
    def keys(query: str) -> list[str]:
        return json.loads(got(f"{served}search.json?q={query}")[2])["keys"]

    with closing(sqlite3.connect(store)) as raw:
        asked = [json.loads(turns)[0] for (turns,) in raw.execute("SELECT turns FROM prompts")]
    about = [turn for turn in asked if "castles" in turn and "moats" in turn]
    assert len(about) == 1
    # Of 24 contestants all but the teacher and the canaries answered it, and one canary repeats a word.
    assert len(keys("castles+moat")) >= 16
    assert keys("castles+zebra") == []
    assert keys("%22+OR+%2A") == []


def test_ctrl_c_ends_it_without_a_word(store: Path) -> None:
    with serving(store) as (address, program):
        got(f"{address}live.json")
        program.send_signal(signal.SIGINT)
        assert program.wait(timeout=20) == 0
        assert program.stdout is not None
        assert program.stdout.read() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "add --remote to mean it"),
        (["--store", "nowhere.sqlite3"], "no store at nowhere.sqlite3"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["view", *arguments])
    assert (result.exit_code, said in result.stderr) == (2, True)


@needs_chromium
def test_a_page_follows_the_store_and_searches_it(browser: Any, served: str, store: Path) -> None:
    page = browser.new_context().new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{served}comparisons.html")
    page.locator("#count >> text=1,520 of 1,520").wait_for()
    page.locator("input[name=q]").press_sequentially("castles moat", delay=40)
    page.locator("#count >> text=/^(1[6-9]|2[0-9]) of 1,520/").wait_for()
    page.goto(f"{served}runs.html")
    with closing(sqlite3.connect(store)) as raw:
        raw.execute(
            "INSERT INTO runs SELECT 77, protocol_key, started, NULL, arguments, recipe, environment FROM runs LIMIT 1"
        )
        raw.commit()
    page.locator("h2 >> text=Run 77").wait_for(timeout=20_000)
    assert complaints == []


def test_what_a_run_is_at_is_shown_until_it_falls_silent(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(str(store))) as opened:
        with opened.write() as session:
            run = session.scalars(select(schema.Run)).first()
            assert run is not None
            given = {name: getattr(run, name) for name in ("protocol_key", "started", "arguments", "environment")}
            session.add(schema.Run(id=78, **given, recipe={"name": "mine"}))
        reporter = silent()
        with reporter.bar("train mine, seed 4", 1, "steps", "d" * 32) as bar:
            bar.reach(3, 12)
            Watched(opened, 78, reporter, list(Stage)).enter(Stage.train)
        with opened.write() as session:
            session.add(schema.Metric(derivation_key="d" * 32, step=1, values={"loss": 2.5}))
        now = Now(opened)
        with now.site() as site:
            version, page = now.stamp.version, site.content("index.html")
            assert "mine: running, at train" in page
            assert '<progress max="12" value="3" aria-label="train mine, seed 4">' in page
            assert "train mine, seed 4: loss" in site.content("runs.html")
        monkeypatch.setattr(runs, "SILENCE", 0.0)
        monkeypatch.setattr(now, "_due", 0.0)
        with now.site() as site:
            assert now.stamp.version != version
            assert "mine: running" not in site.content("index.html")
            assert "stopped, at train" in site.content("runs.html")


@needs_chromium
def test_a_page_follows_what_a_run_is_at_without_being_made_anew(browser: Any, tmp_path: Path) -> None:
    path = copied(tmp_path / "going.sqlite3")
    reporter, complaints, asked = silent(), list[str](), list[str]()
    with closing(open_store(str(path))) as store, reporter.bar("train mine", 1, "steps", "d" * 32) as bar:
        with store.write() as session:
            run = session.scalars(select(schema.Run)).first()
            assert run is not None
            given = {name: getattr(run, name) for name in ("protocol_key", "started", "arguments", "environment")}
            session.add(schema.Run(id=78, **given, recipe={"name": "mine"}))
        watch = Watched(store, 78, reporter, list(Stage))
        bar.reach(3, 12)
        watch.enter(Stage.train)
        with serving(path) as (address, _):
            page = browser.new_context().new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.goto(f"{address}index.html")
            page.locator("[data-underway] >> text=3 of 12 steps").wait_for()
            page.evaluate("document.querySelector('h3').id = 'kept'")
            page.on("request", lambda request: asked.append(request.url.removeprefix(address)))
            bar.reach(7, 12)
            watch.note()
            page.locator("[data-underway] >> text=7 of 12 steps").wait_for(timeout=20_000)
            assert page.locator("#kept").count() == 1
    assert (set(asked), complaints) == ({"live.json"}, [])
