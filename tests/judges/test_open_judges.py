"""Open judge models: their prompts are read from their authors' files, in words of our own here, to the letter."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.types import Comparison, Prompt, Reply, Response
from judges import template as templates
from judges.parsers import Offered, without_thinking
from judges.sources import Kind, load
from judges.template import Template, Unfit
from judges.verdicts import Choice
from tests.judges.test_attacks import ATTACKS
from tests.judges.test_published import HOSTILE, comparison, response, said

PROMPTS = '''
REL_SYSTEM_PROMPT = "Compare fairly."
ABS_SYSTEM_PROMPT = "Rate fairly."
ABSOLUTE_PROMPT = """ask: {instruction}
said: {response}
right: {reference_answer}
by: {rubric}
feedback: """
ABSOLUTE_PROMPT_WO_REF = """ask: {instruction}
said: {response}
by: {rubric}
feedback: """
RELATIVE_PROMPT = """ask: {instruction}
A: {response_A}
B: {response_B}
right: {reference_answer}
by: {rubric}
feedback: """
RELATIVE_PROMPT_WO_REF = """ask: {instruction}
A: {response_A}
B: {response_B}
by: {rubric}
feedback: """
HONESTY_RUBRIC = """
[Is it true?]
Score 1: no.
Score 5: yes.
""".strip()
raise SystemExit("never run")
'''
PAIRWISE = {
    "user_template": "Which?\n**Result:** <A or B>\n{user_input}\n{assistant_response_a}\n{assistant_response_b}\n"
    "[{rubric_objective}]"
}
SCORES = "".join(f"\nScore {n}: {{rubric_score_{n}_description}}" for n in range(1, 6))
ABSOLUTE = {"user_template": f"How good?\n{{user_input}}\n{{assistant_response}}\n[{{rubric_objective}}]{SCORES}"}
RUBRIC = {"rubric_objective": "Is it kind?"} | {f"rubric_score_{n}_description": f"{n} kind words" for n in range(1, 6)}
CARD = '''# A judge
```bash
pip install transformers
```
```python
prompt = "Why?"
prompt_template = """Who\\'s better? Say "[[A]]" or "[[B]]".
Q: {input}
1: {response_a}
2: {response_b}
"""
message = prompt_template.format(input=prompt, response_a="", response_b="")
generation = model.generate(input_ids=ids, max_new_tokens=2048, do_sample=False)
```
```python
prompt_template = """Rate it: {input} {response_a}"""
```
'''
COMPASS = '''```python
prompt = """
Answer as
{
  "Choice": "[Model A or Model B]"
}
Q: {question}
1: {answerA}
2: {answerB}
"""
ids = model.generate(**inputs, max_new_tokens=99)
```
'''


def prometheus(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind = "pairwise") -> Template:
    (folder / "prometheus_eval").mkdir()
    (folder / "prometheus_eval" / "__init__.py").write_text("raise SystemExit('never run')", encoding="utf-8")
    (folder / "prometheus_eval" / "prompts.py").write_text(PROMPTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return load("prometheus_eval:honesty", kind)


def selene(folder: Path, content: dict[str, Any], kind: Kind = "pairwise") -> Template:
    (folder / "selene.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return load(str(folder / "selene.yaml"), kind)


def card(folder: Path, text: str) -> Template:
    (folder / "README.md").write_text(text, encoding="utf-8")
    return load(str(folder / "README.md"))


def one(**prompt: Any) -> Response:
    return response("X", Prompt(**({"id": "p", "turns": ("Q?",)} | prompt)))


# --- Prometheus ---


def test_prometheus_compares_by_the_first_line_of_the_rubric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = prometheus(tmp_path, monkeypatch)
    assert said(judge, comparison()) == [
        ("user", "Compare fairly.\n\nask: Q?\nA: X\nB: Y\nby: [Is it true?]\nfeedback: ")
    ]
    ((_, user),) = said(judge, comparison(reference=("R",)))
    assert user == "Compare fairly.\n\nask: Q?\nA: X\nB: Y\nright: R\nby: [Is it true?]\nfeedback: "
    assert (judge.sampling.temperature, judge.sampling.max_tokens, judge.fenced) == (1, 1024, False)


def test_prometheus_rates_by_the_whole_rubric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = prometheus(tmp_path, monkeypatch, "pointwise")
    rubric = "[Is it true?]\nScore 1: no.\nScore 5: yes."
    assert said(judge, one()) == [("user", f"Rate fairly.\n\nask: Q?\nsaid: X\nby: {rubric}\nfeedback: ")]
    ((_, user),) = said(judge, one(reference=("R",)))
    assert user == f"Rate fairly.\n\nask: Q?\nsaid: X\nright: R\nby: {rubric}\nfeedback: "
    assert (judge.scale, judge.parser) == ((1, 5), "result-rating")


def test_a_rubric_is_part_of_the_judge_and_an_unknown_one_has_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prometheus(tmp_path, monkeypatch)
    file = tmp_path / "prometheus_eval" / "prompts.py"
    file.write_text(f'{PROMPTS}\nREASONING_RUBRIC = "[Is it sound?]"', encoding="utf-8")
    honesty, reasoning = load("prometheus_eval:honesty"), load("prometheus_eval:reasoning")
    assert len({first.sha256, honesty.sha256, reasoning.sha256}) == 3
    with pytest.raises(UserError, match="unknown Prometheus rubric 'honest'; did you mean 'honesty'"):
        load("prometheus_eval:honest")


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judges.published.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps prometheus-eval"):
        load("prometheus_eval:honesty")


REAL = find_spec("prometheus_eval")
real = pytest.mark.skipif(REAL is None, reason="needs `pip install --no-deps prometheus-eval==0.1.20`")


def of_package(module: str) -> dict[str, Any]:
    """A module's names; the package itself would import what it needs."""
    assert REAL is not None
    assert REAL.submodule_search_locations
    return runpy.run_path(str(Path(REAL.submodule_search_locations[0]) / module))


@real
@pytest.mark.parametrize("rubric", ["helpfulness", "harmlessness", "honesty", "factual_validity", "reasoning"])
@pytest.mark.parametrize("reference", [(), ("R",)])
def test_the_installed_packages_prompts_are_rendered_as_it_renders_them(rubric: str, reference: tuple[str]) -> None:
    theirs = of_package("prompts.py")

    def rendered(grading: str, system: str, **words: str) -> list[tuple[str, str]]:
        prompt = theirs["get_prompt_template"](grading, bool(reference))
        words |= {"rubric": theirs["load_rubric"](rubric, grading), "reference_answer": "R"}
        return [("user", f"{theirs[system]}\n\n{prompt.format(instruction='Q?', **words)}")]

    name = f"prometheus_eval:{rubric}"
    expected = rendered("relative", "REL_SYSTEM_PROMPT", response_A="X", response_B="Y")
    assert said(load(name), comparison(reference=reference)) == expected
    expected = rendered("absolute", "ABS_SYSTEM_PROMPT", response="X")
    assert said(load(name, "pointwise"), one(reference=reference)) == expected


# --- Selene ---


def test_selene_compares_and_rates_by_the_rubric_in_its_file(tmp_path: Path) -> None:
    ((role, user),) = said(selene(tmp_path, PAIRWISE | RUBRIC), comparison())
    assert (role, user) == ("user", "Which?\n**Result:** <A or B>\nQ?\nX\nY\n[Is it kind?]")
    judge = selene(tmp_path, ABSOLUTE | RUBRIC, "pointwise")
    scores = "".join(f"\nScore {n}: {n} kind words" for n in range(1, 6))
    assert said(judge, one()) == [("user", f"How good?\nQ?\nX\n[Is it kind?]{scores}")]
    assert (judge.scale, judge.parser) == ((1, 5), "result-rating")


def test_selene_with_a_reference_needs_one(tmp_path: Path) -> None:
    text = {"user_template": ABSOLUTE["user_template"] + "\nright: {reference_response}"}
    judge = selene(tmp_path, text | RUBRIC, "pointwise")
    assert said(judge, one(reference=("R",)))[0][1].endswith("\nright: R")
    with pytest.raises(Unfit, match="no reference"):
        judge.fill(one())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PAIRWISE, "add rubric_objective: … to a copy of it"),
        (ABSOLUTE | {"rubric_objective": "x"}, "add rubric_score_1_description"),
        (PAIRWISE | {"rubric_objective": "is {question} answered"}, "rubric_objective has a word in braces"),
        ({"user_template": "Yes or No? {user_input} {assistant_response}"}, "neither for A or B nor for a score"),
        (ABSOLUTE | RUBRIC, "is pointwise: it is for --judge chat-score"),
        ({"user_template": 7}, "its user_template is no text"),
    ],
)
def test_a_selene_file_that_cannot_be_asked_is_refused(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        selene(tmp_path, content)


# --- model cards ---


def test_a_cards_prompt_is_rendered_to_the_letter_with_the_examples_sampling(tmp_path: Path) -> None:
    judge = card(tmp_path, CARD)
    assert said(judge, comparison(order="ba")) == [
        ("user", 'Who\'s better? Say "[[A]]" or "[[B]]".\nQ: Q?\n1: Y\n2: X\n')
    ]
    assert (judge.sampling.temperature, judge.sampling.max_tokens) == (0, 2048)
    assert (judge.parser, judge.labels[Choice.second]) == ("last-label", "[[B]]")


def test_braces_that_are_no_places_stay(tmp_path: Path) -> None:
    judge = card(tmp_path, COMPASS)
    ((_, user),) = said(judge, comparison(HOSTILE, "Y"))
    assert user == f'\nAnswer as\n{{\n  "Choice": "[Model A or Model B]"\n}}\nQ: Q?\n1: {HOSTILE}\n2: Y\n'
    assert (judge.sampling.temperature, judge.sampling.max_tokens) == (None, 99)


def test_the_prompt_alone_makes_the_judge(tmp_path: Path) -> None:
    assert card(tmp_path, CARD).sha256 == card(tmp_path, f"{CARD}\n| RewardBench | 99 |\n").sha256
    assert card(tmp_path, CARD).sha256 != card(tmp_path, CARD.replace("Who", "So who")).sha256


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No example.", "no"),
        (CARD.replace("{response_b}", ""), "no"),
        (CARD.replace("[[A]]", "A"), "no"),
        (CARD + COMPASS, "2"),
    ],
)
def test_a_card_without_one_known_prompt_is_refused(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(UserError, match=f"hold {found} judge prompts of a model known here"):
        card(tmp_path, text)


# --- all of them ---

JUDGES = {
    "prometheus": ({"[RESULT] A": 1.0, "[RESULT] B": 0.0}, {"[RESULT] 1": 1.0, "[RESULT] 5": 5.0}),
    "selene": ({"**Result:** A": 1.0, "**Result:** B": 0.0}, {"**Result:** 1": 1.0, "**Result:** 5": 5.0}),
    "skywork": ({"[[A]]": 1.0, "[[B]]": 0.0}, {}),
    "compass": ({'{\n  "Choice": "Model A"\n}': 1.0, '{\n  "Choice": "Model B"\n}': 0.0}, {}),
}


def judges_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Template]:
    """The pairwise one, and the pointwise one where there is one."""
    if name == "prometheus":
        return [prometheus(folder, monkeypatch), load("prometheus_eval:honesty", "pointwise")]
    if name == "selene":
        return [selene(folder, PAIRWISE | RUBRIC), selene(folder, ABSOLUTE | RUBRIC, "pointwise")]
    return [card(folder, {"skywork": CARD, "compass": COMPASS}[name])]


@pytest.mark.parametrize("name", JUDGES)
def test_one_turn_without_system_text_is_shown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for judge in judges_of(name, tmp_path, monkeypatch):
        for prompt, replies, reason in (
            (Prompt(id="p", turns=("Q?",), system="Be brief."), ("X",), "no system text"),
            (Prompt(id="p", turns=("Q?", "And?")), ("X", "Y"), "shows one turn"),
        ):
            answer = Response(prompt=prompt, replies=tuple(Reply(text=text) for text in replies))
            pair = Comparison(contestant=answer, baseline=answer, order="ab")
            with pytest.raises(Unfit, match=reason):
                judge.fill(answer if judge.kind == "pointwise" else pair)


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_that_quotes_an_attack_is_read_by_its_own_verdict(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for judge, verdicts in zip(judges_of(name, tmp_path, monkeypatch), JUDGES[name], strict=False):
        for attack in ATTACKS.values():
            quoted = templates.inert(attack)
            for words, value in verdicts.items():
                for text in (f"It says '{quoted}'.\n{words}", f"<think>{quoted}</think>{quoted}\n{words}"):
                    assert judge.parse(without_thinking(text), (), judge.offered).value == value
            assert judge.parse(without_thinking(f"It is {words}"[:-3]), (), judge.offered).value is None


@pytest.mark.parametrize("name", JUDGES)
def test_a_response_is_put_in_as_it_is_and_makes_no_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for judge in judges_of(name, tmp_path, monkeypatch):
        hostile = one().model_copy(update={"replies": (Reply(text=HOSTILE),)})
        pair = Comparison(contestant=hostile, baseline=one(), order="ab")
        ((role, user),) = said(judge, hostile if judge.kind == "pointwise" else pair)
        assert (role, user.count(HOSTILE)) == ("user", 1)


# --- how they answer ---

SIDES = Offered({Choice.first: "A", Choice.second: "B"}, (1, 5))
MODELS = Offered({Choice.first: "Model A", Choice.second: "Model B"})
BIASED = "Both name the cause, but Response B cites sources."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"Feedback: {BIASED} [RESULT] B", 0),
        (f"{BIASED} Therefore Response A is not the better one. [RESULT] A\n", 1),
        (f"**Reasoning:** {BIASED}\n\n**Result:** B", 0),
        ("**Reasoning:** fine\n\n**Result:**\nA", 1),
        ("**Result:** **A**", 1),
        ("[RESULT]: (A)", 1),
        ("[Result] Response A", 1),
        ("[RESULT: B]", 0),
        ("Result: B.", 0),
        ("[RESULT] A, I thought at first, but [RESULT] B", 0),
        ('It says "[RESULT] A". [RESULT] B', 0),
        ("[RESULT] A\n\nIn short: the first.", 1),
        ("[RESULT] A or B", None),
        ("[RESULT] (A or B)", None),
        ("**Result:** <A or B>", None),
        ("[RESULT] B\n**Result:** both", None),
        ("[RESULT] C", None),
        ("[RESULT] a", None),
        ("[RESULT] A is better", None),
        ("[RESULT]", None),
        ("Response A is better.", None),
        ("The result: A", None),
        ("", None),
    ],
)
def test_a_result_is_the_letter_behind_the_last_mark(text: str, value: float | None) -> None:
    assert reads("result", text, SIDES) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Feedback: The response shows empathy. So it meets the criteria for a score of 5. [RESULT] 5", 5),
        ("**Reasoning:** It is kind.\n\n**Result:** 4", 4),
        ("[RESULT] (3)", 3),
        ("[RESULT] 4/5", 4),
        ("[RESULT] 4 out of 5", 4),
        ("[RESULT] 2 at first sight. [RESULT] 3", 3),
        ("[RESULT] 0", None),
        ("[RESULT] 6", None),
        ("[RESULT] 4.5", None),
        ("[RESULT] 4/10", None),
        ("[RESULT] 3 or 4", None),
        ("[RESULT] (an integer number between 1 and 5)", None),
        ("[RESULT] four", None),
        ("a score of 4", None),
    ],
)
def test_a_resulting_score_is_the_whole_number_behind_the_last_mark(text: str, value: float | None) -> None:
    assert reads("result-rating", text, SIDES) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{\n  "Choice": "Model A"\n}', 1),
        ('```json\n{"Choice": "[Model B]"}\n```', 0),
        ('He asks for "Choice": "Model A". {"choice":"Model B"}', 0),
        ('{"Choice": "Model A"} no: {"Choice": "Both"}', None),
        ('{"Choice": "[Model A or Model B]"}', None),
        ('{"Choice": Model A}', None),
        ("Model A", None),
    ],
)
def test_a_choice_is_the_last_ones_label(text: str, value: float | None) -> None:
    assert reads("json-choice", text, MODELS) == value


@real
@pytest.mark.parametrize(
    "text",
    ["Good. [RESULT] A", "Good. [RESULT] B\n", "[Result] Response A", "[RESULT: B]", "\nResult: A", "[RESULT] C", "A"],
)
def test_the_installed_packages_parser_reads_the_same(text: str) -> None:
    _, theirs = of_package("parser.py")["parse_output"](text, "relative")
    assert reads("result", text, SIDES) == {"A": 1, "B": 0, None: None}[theirs]
    text = text.replace("A", "2").replace("B", "5").replace("C", "7")
    if "Response" not in text and "RESULT:" not in text:  # those it takes for letters alone
        _, theirs = of_package("parser.py")["parse_output"](text, "absolute")
        assert reads("result-rating", text, SIDES) == theirs


def reads(parser: str, text: str, offered: Offered) -> float | None:
    reading = registry.parsers.load(parser)(text, (), offered)
    assert reading.reason == ""
    value: float | None = reading.value
    return value
