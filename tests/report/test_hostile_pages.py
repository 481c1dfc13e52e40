"""A payload in every text of the store: shown as text, nothing runs, nothing loads."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dadpo_bench.report import Site
from dadpo_bench.store import open_store, schema
from tests.report.browsers import Looking, copied, looking, needs_chromium, serving, written

pytestmark = needs_chromium

RAN = "document.title='RAN';window.ran=1"
PAYLOAD = (
    f"</script></title></textarea></style></table></details><script>{RAN}</script>"
    f'<img src="http://127.0.0.1:9/x.png" onerror="{RAN}"><svg onload="{RAN}"></svg>'
    f'<iframe srcdoc="<script>parent.{RAN}</script>"></iframe><a href="javascript:{RAN}">link</a>'
    f"[link](javascript:{RAN}) ![image](http://127.0.0.1:9/y.png) <http://127.0.0.1:9/auto>\n\n"
    "&#8238;entity &#x200b;&rlm;| a | b |\n|---|---|\n" + f"| {'wide ' * 60}| x |\n\n"
    f'"\'`-->]]>{{{{7*7}}}}${{7*7}}$x_1$ \u202eabc\u2066\u2028\x00\x1b[2J dadpo.index("'
)
KEPT = {"kind", "outcome", "order", "domain", "split", "precision", "stage", "finish"}
"""What the program itself writes, and reads again."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference with verdicts beside its ratings, and the payload behind every text that anybody else wrote."""
    folder = tmp_path_factory.mktemp("hostile")
    store = copied(folder / "x.sqlite3")
    with closing(sqlite3.connect(store)) as raw:
        _judge_pairs(raw)
        _leave_undone(raw)
        for table in schema.Base.metadata.sorted_tables:
            keys = {column.name for column in table.columns if column.primary_key or column.foreign_keys}
            for column in table.columns:
                if column.name in keys | KEPT or column.name.endswith("_key"):
                    continue
                kind = type(column.type).__name__
                if kind in ("String", "Text"):
                    raw.execute(f'UPDATE {table.name} SET "{column.name}" = "{column.name}" || ?', (PAYLOAD,))
                elif kind == "JSON":
                    _plant(raw, table.name, column.name)
        raw.execute("UPDATE contestants SET name = substr(name, 1, instr(name, '<') - 1) WHERE name LIKE 'sft<%'")
        long = json.dumps([{"text": "z" * 1_000_000 + PAYLOAD, "token_ids": [], "finish": "stop"}])
        raw.execute("UPDATE responses SET replies = ? WHERE key = ?", (long, _of_somebody(raw)))
        raw.commit()
        raw.execute("UPDATE runs SET finished = NULL")
        raw.commit()
    return written(store, folder / "report")


def _judge_pairs(raw: sqlite3.Connection) -> None:
    """A judge that compares, in both orders, what one method and the teacher answered; and how it was tried."""
    raw.execute("INSERT INTO judges VALUES ('j2', 'chat:model', 'pairwise', 0, '{\"judge\": \"chat\"}')")
    pairs = (
        "SELECT a.response_key, t.response_key FROM answers a JOIN contestants c ON c.key = a.contestant_key "
        "JOIN answers t ON t.prompt_key = a.prompt_key JOIN contestants b ON b.key = t.contestant_key "
        "WHERE c.name = 'dadpo' AND c.seed = 0 AND b.kind = 'teacher'"
    )
    for order, outcome in (("ab", "win"), ("ba", "loss")):
        raw.execute(
            'INSERT INTO verdicts (judge_key, contestant_response, baseline_response, "order", outcome, preference, '
            "reason, raw, resolved_model, fingerprint, tokens, answer_tokens, seconds, asked) "
            "SELECT 'j2', x.a, x.b, ?, ?, NULL, '', 'because', 'model', '', 10, 5, 0.5, '2026-01-01' "
            f"FROM ({pairs.replace('a.response_key, t.response_key', 'a.response_key AS a, t.response_key AS b')}) x",
            (order, outcome),
        )
    raw.execute(
        "INSERT INTO scores SELECT protocol_key, 'j2', task_key, baseline, contestant, '{}' FROM scores LIMIT 1"
    )
    raw.execute(
        "INSERT INTO judge_evaluations VALUES ('j2', 's', 'set', '2026-01-01', "
        """'{"agreement": null, "cohen_kappa": null}')"""
    )


def _leave_undone(raw: sqlite3.Connection) -> None:
    """What a run was at when it was stopped, and a curve of the training that it was at."""
    for place, label in enumerate(("train", "train dadpo, seed 0")):
        raw.execute(
            "INSERT INTO activities SELECT id, ?, ?, 'steps', 0, 1, 2, started, started, 0, 'undone' FROM runs LIMIT 1",
            (place, label),
        )
    raw.execute("""INSERT INTO metrics VALUES ('undone', 1, '{"loss": 2.5}')""")


def _of_somebody(raw: sqlite3.Connection) -> str:
    """A response that is on the board."""
    query = (
        "SELECT a.response_key FROM answers a JOIN contestants c ON c.key = a.contestant_key "
        "WHERE c.kind = 'method' ORDER BY 1 LIMIT 1"
    )
    found: str = raw.execute(query).fetchone()[0]
    return found


def _plant(raw: sqlite3.Connection, table: str, column: str) -> None:
    for row, value in raw.execute(f'SELECT rowid, "{column}" FROM {table}').fetchall():
        planted = json.dumps(_in(json.loads(value))) if value else value
        raw.execute(f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?', (planted, row))


def _in(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _in(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in(inner, name) for inner in value]
    return value + PAYLOAD + "\ud800" if isinstance(value, str) and name not in KEPT else value


@pytest.fixture(scope="module", params=["report", "view"])
def seen(request: pytest.FixtureRequest, browser: Any, planted: Path) -> Iterator[Looking]:
    if request.param == "report":
        with looking(browser, planted) as opened:
            yield opened
        return
    with closing(sqlite3.connect(planted.parent / "x.sqlite3")) as raw:  # so that it is running
        raw.execute("UPDATE activities SET updated = strftime('%Y-%m-%d %H:%M:%f', 'now')")
        raw.commit()
    with serving(planted.parent / "x.sqlite3") as (address, _), looking(browser, address) as opened:
        yield opened


def assert_untouched(seen: Looking) -> None:
    assert seen.page.title() != "RAN"
    assert seen.page.evaluate("window.ran") is None
    assert (seen.foreign, seen.complaints) == ([], [])
    assert seen.page.locator("main iframe, main img, main script, main [onload], main [onerror]").count() == 0


def test_every_page_shows_it_as_text(seen: Looking, planted: Path) -> None:
    if seen.base.startswith("http"):
        seen.open("index.html")
        assert "onerror=" in seen.text("[data-underway]")
    for page in sorted(path.name for path in planted.glob("*.html")):
        seen.open(page)
        for folded in seen.page.locator("details").all():
            folded.evaluate("element => { element.open = true }")
        assert_untouched(seen)
        if page != "comparisons.html":
            assert "onerror=" in seen.text("main"), page


@pytest.mark.parametrize("view", ["m", "r", "d"])
@pytest.mark.parametrize("judge", ["pmi", "chat:model"])
def test_comparisons_show_it_as_text_however_they_are_read(seen: Looking, view: str, judge: str) -> None:
    seen.open("comparisons.html")
    boards = seen.page.locator("select[name=board] option").all_inner_texts()
    seen.page.select_option("select[name=board]", label=next(b for b in boards if f"judge {judge}<" in b))
    seen.page.locator("h1").click()
    for _ in range(3):
        seen.page.keyboard.press("j")
        seen.page.locator("#comparison h2").wait_for()
        seen.page.keyboard.press(view)
        shown = seen.text("#comparison")
        assert "<script>" in shown
        assert "⟨U+202E⟩" in shown
        assert "\u202e" not in seen.page.evaluate("document.body.textContent")
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for link in seen.page.locator("#comparison .link").all():
            link.click()
        assert_untouched(seen)


def test_a_line_of_a_million_characters_waits_to_be_asked_for(seen: Looking, planted: Path) -> None:
    path = planted.parent / "x.sqlite3"
    with closing(sqlite3.connect(path)) as raw:
        long = _of_somebody(raw)
    with closing(open_store(str(path))) as store, store.read() as session:
        compared = next(c for c in Site(session, "x").comparisons if c.ours == long)
    seen.open(f"comparisons.html#c={compared.key}")
    more = seen.page.get_by_role("button", name="Show all 1,000")
    more.wait_for()
    assert len(seen.text("#comparison")) < 60_000
    more.click()
    assert len(seen.text("#comparison")) > 1_000_000
    assert_untouched(seen)
