"""Published protocols, read from their own files, so that a judge asks what theirs asks, to the letter.

Their prompts have no fence and nothing in a response is broken, for either would make another prompt: a response
can speak to such a judge. Placeholders in a response are still not filled, and its control tokens make no message:
where the originals fill first and look for messages afterwards, here the template is taken apart before.
A judge's contradictory labels are read by the parser that each names; see `judges.parsers`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import yaml

from dadpo_bench.errors import UserError
from dadpo_bench.registry import unknown
from judges.template import Body
from judges.verdicts import Choice

Kind = Literal["pairwise", "pointwise"]

Read = tuple[Mapping[str, Any], list[bytes]]
"""A template's settings, and the bytes of the files they came from."""

_RENAMED = {
    # AlpacaEval
    "instruction": "question",
    "output_1": "answer_a",
    "output_2": "answer_b",
    # Arena-Hard, of 2025 and of 2024
    "QUESTION": "question",
    "ANSWER_A": "answer_a",
    "ANSWER_B": "answer_b",
    "REFERENCE": "reference",
}
_ARENA_2024 = {"question_1": "question", "answer_1": "answer_a", "answer_2": "answer_b"}
_FASTCHAT = {"ref_answer_1": "reference_1", "ref_answer_2": "reference_2"}

WORD = re.compile(r"\{(\w+)\}")


def formatted(text: str, renamed: Mapping[str, str]) -> str:
    """A `str.format` template with our names. Raises `ValueError` for what one pass over `{name}`s cannot fill."""
    parts: list[str] = []
    fields: list[str] = []
    for literal, field, spec, conversion in Formatter().parse(text):
        parts.append(literal)
        if field is not None:
            if spec or conversion or not field.isidentifier():
                raise ValueError("its braces are more than places to fill")
            fields.append(renamed.get(field, field))
            parts.append(f"{{{fields[-1]}}}")
    if WORD.findall("".join(parts)) != fields:  # doubled braces that would be filled
        raise ValueError("its braces are more than places to fill")
    return "".join(parts)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The same text with our names for its places."""
    return WORD.sub(lambda word: f"{{{names.get(word[1], word[1])}}}", text)


def installed(package: str, remedy: str) -> Path:
    """The directory of an installed package, which is not imported. Raises `UserError` where there is none."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {package} is not installed: {remedy}")
    return Path(spec.submodule_search_locations[0])


# --- FastChat: MT-Bench ---

_FASTCHAT_LABELS = {Choice.first: "[[A]]", Choice.second: "[[B]]", Choice.tie: "[[C]]"}


def fastchat(path: Path, kind: Kind) -> Read:
    """`judge_prompts.jsonl`: the prompts of one kind, with reference where the prompt has one.

    Of a conversation the pairwise prompts judge the last turn; the single ones rate each. Sampling as in
    FastChat: temperature 0, 2,048 tokens. FastChat takes `[[A]]` anywhere before it looks for `[[B]]`; here
    the last label is the verdict.
    """
    content = path.read_bytes()
    entries = [json.loads(line) for line in content.decode().split("\n") if line.strip()]
    wanted, form = ("pairwise", "[[A]]") if kind == "pairwise" else ("single", "[[rating]]")
    bodies: dict[tuple[bool, bool], Body] = {}
    for entry in entries:
        if entry["type"] != wanted:
            continue
        if entry["output_format"] != form:
            raise ValueError(f"'{entry['name']}': output format {entry['output_format']} is not read")
        user = formatted(entry["prompt_template"], _FASTCHAT)
        case = ("{question_2}" in user, "{reference_1}" in user)
        if case in bodies:
            raise ValueError(f"'{entry['name']}' and another are for the same prompts: keep one of them in the file")
        bodies[case] = Body(system=entry["system_prompt"], user=user, several_turns=case[0], with_reference=case[1])
    if not bodies:
        raise ValueError(f"it has no prompt of type {wanted}")
    return {
        "kind": kind,
        "parser": "last-label" if kind == "pairwise" else "fastchat-rating",
        "labels": _FASTCHAT_LABELS if kind == "pairwise" else {},
        "bodies": tuple(bodies[case] for case in sorted(bodies, reverse=True)),  # those with a reference first
        "sampling": {"temperature": 0.0, "max_tokens": 2048},
        "turns": ("last",) if kind == "pairwise" else ("all", "last"),
        "fenced": False,
    }, [content]


# --- Arena-Hard ---

_ARENA_LABELS = {
    Choice.much_first: "[[A>>B]]",
    Choice.first: "[[A>B]]",
    Choice.tie: "[[A=B]]",
    Choice.second: "[[B>A]]",
    Choice.much_second: "[[B>>A]]",
}
_ARENA_PATTERN = r"\[\[([AB<>=]+)\]\]"


def arena_hard(path: Path) -> Read:
    """`config/*.yaml`: five levels. Of 2025's files the system texts, one a category, are in `utils/judge_utils.py`.

    That file is read, never run. The answer is asked for once: no second question where it holds no label.
    """
    content = path.read_bytes()
    config = yaml.safe_load(content)
    if not isinstance(config, dict) or "prompt_template" not in config:
        raise ValueError("it is no Arena-Hard judge config: it has no prompt_template")
    if config.get("regex_pattern") != _ARENA_PATTERN:
        raise ValueError(f"its regex_pattern is not {_ARENA_PATTERN}")
    text, contents = config["prompt_template"], [content]
    if isinstance(text, list):
        if len(text) != 1:
            raise ValueError("it asks several questions in a row, which this judge does not")
        text = formatted(text[0], _ARENA_2024)
    else:
        text = formatted(text, _RENAMED)
    if "system_prompt" in config:
        bodies = [Body(system=config["system_prompt"], user=text)]
    else:
        settings = path.parent.parent / "utils" / "judge_utils.py"
        if not settings.is_file():
            raise ValueError(f"it has no system_prompt, and {settings} is not there")
        contents.append(settings.read_bytes())
        systems = _judge_settings(contents[-1].decode())
        own = systems.get(config.get("bench_name", ""))
        bodies = [Body(system=system, user=text, category=name) for name, system in systems.items()]
        bodies += [Body(system=own, user=text)] if own is not None else []
    return {
        "parser": "arena-hard",
        "labels": _ARENA_LABELS,
        "bodies": tuple(bodies),
        "sampling": {"temperature": config.get("temperature"), "max_tokens": config.get("max_tokens")},
        "fenced": False,
    }, contents


def _judge_settings(source: str) -> dict[str, str]:
    """The system text of each category in `JUDGE_SETTINGS`, from the module's text."""
    constants: dict[str, str] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        if isinstance(node.value, ast.Constant):
            constants[node.targets[0].id] = str(node.value.value)
        elif node.targets[0].id == "JUDGE_SETTINGS" and isinstance(node.value, ast.Dict):
            found = {}
            for category, settings in zip(node.value.keys, node.value.values, strict=True):
                if not (isinstance(category, ast.Constant) and isinstance(settings, ast.Dict)):
                    continue
                for key, value in zip(settings.keys, settings.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "system_prompt":
                        text = constants[value.id] if isinstance(value, ast.Name) else ast.literal_eval(value)
                        found[str(category.value)] = text
            return found
    raise ValueError("utils/judge_utils.py holds no JUDGE_SETTINGS")


# --- AlpacaEval ---

_MESSAGE = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>", re.DOTALL)
_LINE_LABEL = re.compile(r"\(\?:\^\|\\n\) \?((?:[\w ]|\\[()])+)")


def installed_evaluator(name: str) -> Path:
    """The directory of an evaluator in the installed `alpaca_eval`, which is not imported.

    Raises `UserError` where it or the package is not there.
    """
    remedy = "pip install --no-deps alpaca_eval, or name a directory"
    folder = installed("alpaca_eval", remedy) / "evaluators_configs"
    known = sorted(config.parent.name for config in folder.glob("*/configs.yaml"))
    if name not in known:
        raise UserError(unknown("AlpacaEval evaluator", name, known))
    return folder / name


def alpaca_eval(directory: Path) -> Read:
    """An evaluator's directory: `configs.yaml` and the ChatML prompt it names, in its own or a sister directory.

    Of several evaluators in one file the directory's name chooses.
    """
    content = (directory / "configs.yaml").read_bytes()
    configs = yaml.safe_load(content)
    if not isinstance(configs, dict) or not configs:
        raise ValueError("its configs.yaml names no evaluator")
    if len(configs) > 1 and directory.name not in configs:
        raise ValueError(f"its configs.yaml names {len(configs)} evaluators: name the directory after one of them")
    config = configs[directory.name] if directory.name in configs else next(iter(configs.values()))
    kwargs = config.get("completions_kwargs", {})
    if config.get("batch_size", 1) != 1:
        raise ValueError("it asks about several instructions at once, which this judge does not")
    if kwargs.keys() & {"tools", "functions", "function_call", "tool_choice"}:
        raise ValueError("it needs function calls, which this judge does not make")
    places = (directory.parent / config["prompt_template"], directory / Path(config["prompt_template"]).name)
    prompt = next((place for place in places if place.is_file()), None)
    if prompt is None:
        raise ValueError(f"its prompt {config['prompt_template']} is not there")
    text = prompt.read_bytes()
    return {
        **_alpaca_parser(config),
        "bodies": (_chatml(text.decode()),),
        "sampling": {name: kwargs[name] for name in ("temperature", "max_tokens", "top_logprobs") if name in kwargs},
        "fenced": False,
    }, [content, text, *([directory.name.encode()] if len(configs) > 1 else [])]


def _chatml(text: str) -> Body:
    """Its system and user message. Raises `ValueError` for any other conversation."""
    messages = _MESSAGE.findall(text)
    if [role for role, _ in messages] not in (["system", "user"], ["user"]) or _MESSAGE.sub("", text).strip():
        raise ValueError("its prompt is no ChatML of one system and one user message")
    texts = [renamed(text.strip(), _RENAMED) for _, text in messages]
    return Body(system="".join(texts[:-1]), user=texts[-1])


def _alpaca_parser(config: Mapping[str, Any]) -> Mapping[str, Any]:
    name = config.get("fn_completion_parser", "regex_parser")
    kwargs = config.get("completion_parser_kwargs", {})
    if name == "logprob_parser":
        first = kwargs["numerator_token"]
        others = [token for token in kwargs["denominator_tokens"] if token != first]
        place = kwargs.get("log_prob_index", "batch")
        if len(others) != 1 or place not in ("batch", 0, -1):
            raise ValueError("its logprob_parser weighs other tokens than two at the beginning or the end")
        return {
            "parser": "last-token" if place == -1 else "first-token",
            "labels": {Choice.first: first, Choice.second: others[0]},
            "binary": kwargs.get("is_binarize", True),
        }
    if name == "ranking_parser":
        first = kwargs.get("model_1_name", "model_1")
        return {"parser": "ranking", "labels": {Choice.first: first, Choice.second: f"not {first}"}}
    if name == "lmsys_parser":
        return {"parser": "score-pair", "labels": {Choice.first: "first", Choice.second: "second"}}
    if name == "regex_parser":
        found = {which: _LINE_LABEL.fullmatch(pattern) for which, pattern in kwargs["outputs_to_match"].items()}
        if set(found) == {1, 2} and found[1] and found[2]:
            first, second = (re.sub(r"\\(.)", r"\1", match[1]) for match in (found[1], found[2]))
            return {"parser": "line-label", "labels": {Choice.first: first, Choice.second: second}}
        raise ValueError("its regular expressions are more than labels at the beginning of a line")
    raise ValueError(f"its parser {name} is not known here")
