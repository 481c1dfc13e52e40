"""The report as a reader sees it: opened from disk, filtered, walked through by key, shared, on a phone, at night."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.browsers import REFERENCE, Looking, looking, needs_chromium, written

pytestmark = needs_chromium

PAGES = ("index.html", "comparisons.html", "judges.html", "provenance.html")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(REFERENCE, tmp_path_factory.mktemp("pages") / "report")


@pytest.fixture(scope="module")
def seen(browser: Any, report: Path) -> Iterator[Looking]:
    with looking(browser, report, viewport={"width": 1200, "height": 900}) as opened:
        yield opened


def rows(seen: Looking) -> int:
    return seen.page.locator("#list tbody tr").count()


def test_no_page_asks_anybody_or_complains(browser: Any, report: Path) -> None:
    with looking(browser, report) as seen:
        for page in sorted(path.name for path in report.glob("*.html")):
            seen.open(page)
            assert seen.page.locator("h1").count() == 1
        seen.open("comparisons.html")
        seen.page.locator("#list a").first.click()
        seen.page.locator("#comparison h2").wait_for()
        assert (seen.foreign, seen.complaints) == ([], [])


def test_filters_leave_what_they_say_and_show_all_takes_them_back(seen: Looking) -> None:
    seen.open("comparisons.html")
    assert seen.text("#count") == "1,520 of 1,520 comparisons"
    assert rows(seen) == 100
    seen.page.select_option("select[name=contestant]", label="dadpo")
    seen.page.select_option("select[name=task]", label="general")
    # 40 prompts under each of three seeds.
    assert seen.text("#count") == "120 of 1,520 comparisons"
    seen.page.select_option("select[name=outcome]", label="win")
    seen.page.locator("input[name=above]").fill("1.5")
    shown = seen.page.locator("#list tbody tr").all_inner_texts()
    assert 0 < len(shown) < 40
    assert all("win" in row and float(row.split("×")[1]) >= 1.5 for row in shown)
    seen.page.get_by_role("button", name="Show all").click()
    assert seen.text("#count") == "1,520 of 1,520 comparisons"


def test_a_number_is_typed_as_anywhere_else(seen: Looking) -> None:
    seen.open("comparisons.html")
    seen.page.locator("input[name=above]").press_sequentially("1.25")
    assert seen.page.locator("input[name=above]").input_value() == "1.25"
    assert seen.page.locator("#list tbody tr").first.inner_text().count("×") == 1
    assert "above=1.25" in seen.page.url


def test_a_filtered_list_has_an_address_by_names(seen: Looking) -> None:
    seen.open("comparisons.html#contestant=kd&task=general&outcome=win")
    assert seen.page.locator("select[name=contestant]").input_value() == "kd"
    assert 0 < rows(seen) < 120


def test_a_button_keeps_the_focus_and_the_list_its_length(seen: Looking) -> None:
    seen.open("comparisons.html")
    seen.page.locator("#more").click()
    seen.page.locator("#list tbody tr a").nth(150).click()
    seen.page.locator("#comparison .bar >> text=151 of").wait_for()
    assert rows(seen) == 200
    assert seen.page.locator("#comparison h2").evaluate("element => element.getBoundingClientRect().top >= 0")
    seen.page.get_by_role("button", name="next").click()
    seen.page.locator("#comparison .bar >> text=152 of").wait_for()
    assert seen.page.evaluate("document.activeElement.textContent") == "next →"


def test_more_are_listed_when_asked_for(seen: Looking) -> None:
    seen.open("comparisons.html")
    seen.page.locator("#more").click()
    assert rows(seen) == 200


def test_comparisons_are_walked_through_by_key_within_the_filters(seen: Looking) -> None:
    seen.open("comparisons.html")
    seen.page.select_option("select[name=contestant]", label="kd")
    seen.page.locator("h1").click()  # away from the select, whose keys are its own
    titles = []
    for _ in range(3):
        seen.page.keyboard.press("j")
        seen.page.locator(f"#comparison .bar >> text={len(titles) + 1} of 264").wait_for()
        titles.append(seen.page.locator("#comparison .message").first.inner_text())
    seen.page.keyboard.press("k")
    seen.page.locator("#comparison .bar >> text=2 of 264").wait_for()
    assert seen.page.locator("#comparison .message").first.inner_text() == titles[1] != titles[2]
    seen.page.keyboard.press("Escape")
    seen.page.locator("#comparison").wait_for(state="hidden")
    assert seen.text("#count") == "264 of 1,520 comparisons"


def test_the_address_of_a_comparison_shows_it_to_whoever_gets_it(seen: Looking, browser: Any, report: Path) -> None:
    seen.open("comparisons.html")
    seen.page.locator("#list tbody tr a").nth(7).click()
    seen.page.locator("#comparison h2").wait_for()
    shared, said = seen.page.url, seen.text("#comparison")
    with looking(browser, report) as other:
        other.page.goto(shared)
        other.page.locator("#comparison h2").wait_for()
        assert other.text("#comparison") == said


def test_an_address_that_means_nothing_is_told(seen: Looking) -> None:
    seen.open("comparisons.html#c=000000000000")
    assert "no such comparison" in seen.text("#comparison")


def test_a_response_is_read_rendered_raw_and_with_differences_marked(seen: Looking) -> None:
    seen.open("comparisons.html")
    seen.page.keyboard.press("j")
    seen.page.locator("#comparison h2").wait_for()
    assert seen.page.locator("#comparison .side .text p").count() > 0
    seen.page.keyboard.press("r")
    assert seen.page.locator("#comparison .side .text p").count() == 0
    seen.page.keyboard.press("d")
    assert seen.page.locator("#comparison .side mark.added").count() > 0
    seen.page.keyboard.press("m")


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_scrolls_no_page_sideways(page: str, browser: Any, report: Path) -> None:
    with looking(browser, report, viewport={"width": 390, "height": 844}) as seen:
        seen.open(page)
        if page == "comparisons.html":
            seen.page.keyboard.press("j")
            seen.page.locator("#comparison h2").wait_for()
        width = seen.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


def test_dark_is_dark_and_both_can_be_read(browser: Any, report: Path) -> None:
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    papers = []
    for scheme in ("light", "dark"):
        with looking(browser, report, color_scheme=scheme) as seen:
            seen.open("index.html")
            paper = luminance(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
            papers.append(paper)
            for selector in ("body", "footer", "nav a:not([aria-current])", ".drawing text"):
                colour = "fill" if "text" in selector else "color"
                ink = luminance(seen.page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{colour}"))
                # WCAG 2.2, 1.4.3: 4.5 to 1.
                assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, (scheme, selector)
    assert papers[0] > 0.9 > 0.05 > papers[1]


def test_every_chart_has_its_numbers_behind_it(seen: Looking) -> None:
    seen.open("index.html")
    figures = seen.page.locator("figure")
    assert figures.count() == 3
    for i in range(figures.count()):
        figures.nth(i).locator("summary").click()
        assert figures.nth(i).locator("tbody tr").count() >= 6
        assert figures.nth(i).locator("svg[role=img]").get_attribute("aria-label")
