"""What `check` found as JUnit XML, which CI services show beside tests: a case for each row of a board."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from dadpo_bench.regression import Comparison, Place

_UNSPEAKABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (production 2, Char) can hold in no way, escaped or not."""


def write_junit(path: Path, found: Comparison) -> None:
    """A suite for each board and judge. A proven drop is a failure; a row without a partner is skipped.

    Raises `OSError` where the file cannot be written.
    """
    root = ET.Element("testsuites", name="dadpo-bench check")
    suites: dict[tuple[str, str], ET.Element] = {}
    for place, outcome in _cases(found):
        suite = suites.get(place[:2])
        if suite is None:
            suite = suites[place[:2]] = ET.SubElement(root, "testsuite", name=_plain(f"{place.recipe}, {place.judge}"))
        case = ET.SubElement(suite, "testcase", classname=_plain(place.task), name=_plain(place.contestant))
        case.append(outcome)
    for element in (root, *suites.values()):
        counts = {"tests": "testcase", "failures": "failure", "skipped": "skipped", "errors": "error"}
        for name, tag in counts.items():
            element.set(name, str(sum(1 for _ in element.iter(tag))))
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _cases(found: Comparison) -> Iterator[tuple[Place, ET.Element]]:
    for row in found.rows:
        tag, attributes = ("failure", {"type": "drop", "message": "proven drop"}) if row.dropped else ("system-out", {})
        element = ET.Element(tag, attributes)
        element.text = _plain(f"{row.direction}: {row.evidence}")
        yield row.place, element
    for places, where in ((found.new, "the store compared with"), (found.gone, "this store")):
        for place in places:
            yield place, ET.Element("skipped", message=f"no such row in {where}")


def _plain(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)
