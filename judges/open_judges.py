"""The prompts of open judge models, read from their authors' own files, as `judges.published` reads protocols.

None of their words is in this package: not all of them state a licence, and a copy would go stale. Each prompt shows
one turn and no system text, asked to the letter. What these readers and parsers take was read on 2026-11-25; they are
untested on the models' weights.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dadpo_bench.errors import UserError
from dadpo_bench.registry import unknown
from judges.published import WORD, Kind, Read, formatted, installed, renamed
from judges.template import Body
from judges.verdicts import Choice

_LETTERS = {Choice.first: "A", Choice.second: "B"}


def _result(kind: Kind) -> Mapping[str, Any]:
    """How Prometheus and Selene answer: behind a mark, a letter or a score from 1 to 5."""
    if kind == "pairwise":
        return {"kind": kind, "parser": "result", "labels": _LETTERS}
    return {"kind": kind, "parser": "result-rating", "scale": (1.0, 5.0)}


def _filled(text: str, words: Mapping[str, str]) -> str:
    """`text` with some of its places filled for good. Raises `ValueError` for words that would be filled in turn."""
    for name, said in words.items():
        if WORD.search(said):
            raise ValueError(f"its {name} has a word in braces")
    return WORD.sub(lambda place: words.get(place[1], place[0]), text)


# --- Prometheus 2 (Kim et al. 2024, arXiv 2405.01535) ---

_PROMETHEUS = {
    "instruction": "question",
    "response": "answer",
    "response_A": "answer_a",
    "response_B": "answer_b",
    "reference_answer": "reference",
}
_RUBRIC = "_RUBRIC"


def prometheus(rubric: str, kind: Kind) -> Read:
    """Relative (pairwise) or absolute grading by a rubric of the installed `prometheus_eval`, which is not imported.

    As version 0.1.20 on PyPI has it (which states no licence): with the reference answer where the prompt has one,
    of the rubric's lines the first alone where two responses are compared, 1,024 tokens at temperature 1. Its top_p
    of 0.9 and its repetition penalty of 1.03 are not sent. System text and prompt are one user message, as its README
    asks the weights.

    Raises `UserError` where the package or the rubric is not there.
    """
    file = installed("prometheus_eval", "pip install --no-deps prometheus-eval") / "prompts.py"
    content = file.read_bytes()
    texts = dict(_strings(ast.parse(content)))
    rubrics = sorted(name.removesuffix(_RUBRIC).lower() for name in texts if name.endswith(_RUBRIC))
    if rubric not in rubrics:
        raise UserError(unknown("Prometheus rubric", rubric, rubrics))
    criteria = texts[rubric.upper() + _RUBRIC]
    short, grading = ("REL", "RELATIVE") if kind == "pairwise" else ("ABS", "ABSOLUTE")
    words = {"rubric": criteria.split("\n")[0] if kind == "pairwise" else criteria}

    def body(name: str, with_reference: bool) -> Body:
        user = _filled(formatted(texts[f"{grading}_PROMPT{name}"], _PROMETHEUS), words)
        return Body(system=texts[f"{short}_SYSTEM_PROMPT"], user=user, with_reference=with_reference)

    return {
        **_result(kind),
        "bodies": (body("", True), body("_WO_REF", False)),
        "placement": "user",
        "sampling": {"temperature": 1.0, "max_tokens": 1024},
        "fenced": False,
    }, [content, rubric.encode()]


def _strings(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that are given a string, or a string's `.strip()`, and that string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            match node.value:
                case ast.Constant(value=str(text)):
                    yield node.targets[0].id, text
                case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="strip"), args=[]):
                    yield node.targets[0].id, text.strip()


# --- Selene 1 Mini (Atla; arXiv 2501.17195) ---

_SELENE = {
    "user_input": "question",
    "assistant_response": "answer",
    "assistant_response_a": "answer_a",
    "assistant_response_b": "answer_b",
    "reference_response": "reference",
}


def selene(path: Path) -> Read:
    """`prompt-templates/*.yaml` of github.com/atla-ai/selene-mini: pairwise or absolute scoring.

    The weights' card says Apache-2.0; a licence of these files was not seen. They leave the rubric open: its parts are
    read from the same file, under the names of the places for them. The classification prompts are refused. No
    sampling is documented beside them.
    """
    content = path.read_bytes()
    config = yaml.safe_load(content)
    text = config["user_template"]
    if not isinstance(text, str):
        raise ValueError("its user_template is no text")
    if "{assistant_response_a}" in text:
        kind: Kind = "pairwise"
    elif "{rubric_score_5_description}" in text:
        kind = "pointwise"
    else:
        raise ValueError("it asks neither for A or B nor for a score from 1 to 5")
    rubric = {name for name in WORD.findall(text) if name.startswith("rubric_")}
    if missing := sorted(rubric - set(config)):
        raise ValueError(f"it leaves its rubric open: add {missing[0]}: … to a copy of it")
    user = _filled(formatted(text, _SELENE), {name: str(config[name]) for name in rubric})
    return {**_result(kind), "bodies": (Body(system="", user=user),), "fenced": False}, [content]


# --- Model cards: Skywork-Critic-Llama-3.1 and CompassJudger-2 ---


class _Card(NamedTuple):
    """How to tell a model's prompt on its card, and how the model answers."""

    places: Mapping[str, str]
    """The places that it fills, and our names for them."""
    format: str
    """What it says of the answer's form."""
    parser: str
    labels: Mapping[Choice, str]


_CARDS = (
    # Skywork-Critic-Llama-3.1-8B and -70B (licence: other)
    _Card(
        {"input": "question", "response_a": "answer_a", "response_b": "answer_b"},
        '"[[A]]"',
        "last-label",
        {Choice.first: "[[A]]", Choice.second: "[[B]]"},
    ),
    # CompassJudger-2 (Zhang et al. 2025, arXiv 2507.09104; Apache-2.0)
    _Card(
        {"question": "question", "answerA": "answer_a", "answerB": "answer_b"},
        '"Choice":',
        "json-choice",
        {Choice.first: "Model A", Choice.second: "Model B"},
    ),
)
_CODE = re.compile(r"^```\w*[^\S\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def model_card(path: Path) -> Read:
    """A judge model's `README.md`: the prompt that its Python example asks, with that example's sampling.

    The card is read, never run. The prompt alone is part of the judge's key, so a new benchmark figure on the card
    makes no other judge.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for block in _CODE.findall(path.read_text(encoding="utf-8")):
        try:
            tree = ast.parse(block)
        except (SyntaxError, ValueError):
            continue  # a shell command, or an example with gaps
        for _, text in _strings(tree):
            for card in _CARDS:
                if set(WORD.findall(text)) == set(card.places) and card.format in text:
                    found.setdefault(
                        text,
                        {
                            "parser": card.parser,
                            "labels": card.labels,
                            "bodies": (Body(system="", user=renamed(text, card.places)),),
                            "sampling": _sampling(tree),
                            "fenced": False,
                        },
                    )
    if len(found) != 1:
        raise ValueError(f"its Python examples hold {len(found) or 'no'} judge prompts of a model known here")
    ((text, settings),) = found.items()
    return settings, [text.encode()]


def _sampling(tree: ast.AST) -> Mapping[str, Any]:
    """What `model.generate` is called with."""
    given = {
        keyword.arg: keyword.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "generate"
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Constant)
    }
    sampling = {"max_tokens": given["max_new_tokens"]} if "max_new_tokens" in given else {}
    return sampling | ({"temperature": 0.0} if given.get("do_sample") is False else {})
