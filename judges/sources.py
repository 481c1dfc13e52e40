"""Where a template comes from: a registered name, a TOML file, or a published protocol in its own format."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.registry import unknown
from judges.open_judges import model_card, prometheus, selene
from judges.published import Kind, Read, alpaca_eval, arena_hard, fastchat, installed_evaluator
from judges.template import Body, Template

_INSTALLED: Mapping[str, Callable[[str, Kind], Read]] = {
    "alpaca_eval": lambda evaluator, _: alpaca_eval(installed_evaluator(evaluator)),
    "prometheus_eval": prometheus,
}
"""Installed packages whose prompts are named `PACKAGE:NAME`."""


def load(name: str, kind: Kind = "pairwise") -> Template:
    """The template of that name, for a judge of that kind.

    `name` is a registered template, or a file: `….toml` of our own form; FastChat's `judge_prompts.jsonl`, its
    default prompts of that kind; an Arena-Hard config `….yaml`; an AlpacaEval evaluator's directory, or
    `alpaca_eval:EVALUATOR` where that package is installed; of open judge models `prometheus_eval:RUBRIC` where that
    package is installed, Selene's prompt `….yaml`, or the card `….md` of Skywork-Critic or CompassJudger-2.

    Raises `UserError` where there is none, where it is no valid template, or one for another kind of judge.
    """
    try:
        settings, contents = _read(name, kind)
        template = Template(**settings, sha256=_sha256(contents))
    except ValidationError as error:
        raise UserError(explain(error, f"judge template {name}", list(Template.model_fields))) from error
    except KeyError as error:
        raise UserError(f"judge template {name}: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"judge template {name}: {str(error).splitlines()[0]}") from error
    if template.kind != kind:
        other = "chat" if template.kind == "pairwise" else "chat-score"
        raise UserError(f"judge template {name} is {template.kind}: it is for --judge {other}")
    return template


def _read(name: str, kind: Kind) -> Read:
    """A template's settings and the bytes of the files they came from."""
    package, colon, inside = name.partition(":")
    if colon and package in _INSTALLED:
        return _INSTALLED[package](inside, kind)
    path = Path(name).expanduser()
    formats: Mapping[str, Callable[[Path], Read]] = {
        ".toml": lambda file: (_toml(content := file.read_bytes()), [content]),
        ".jsonl": lambda file: fastchat(file, kind),
        ".yaml": _yaml,
        ".yml": _yaml,
        ".md": model_card,
    }
    if path.suffix in formats:
        if not path.is_file():
            raise UserError(f"no judge template {name}")
        return formats[path.suffix](path)
    if name in registry.templates.names():
        content = registry.packaged(registry.templates[name].target)
        return _toml(content), [content]
    if (path / "configs.yaml").is_file():
        return alpaca_eval(path)
    raise UserError(unknown("judge template", name, registry.templates.names()))


def _yaml(path: Path) -> Read:
    config = yaml.safe_load(path.read_bytes())
    return selene(path) if isinstance(config, dict) and "user_template" in config else arena_hard(path)


def _sha256(contents: list[bytes]) -> str:
    """Of one file its own; of several, that of theirs one after another."""
    sums = [hashlib.sha256(content) for content in contents]
    return sums[0].hexdigest() if len(sums) == 1 else hashlib.sha256(b"".join(s.digest() for s in sums)).hexdigest()


def _toml(content: bytes) -> Mapping[str, Any]:
    """Our own form: `system` with `single_turn` and perhaps `multi_turn`, the rest as `Template` has it."""
    settings = tomllib.loads(content.decode())
    system = settings.pop("system")
    bodies = [Body(system=system, user=settings.pop("single_turn"))]
    if "multi_turn" in settings:
        bodies.append(Body(system=system, user=settings.pop("multi_turn"), several_turns=True))
    return {"bodies": tuple(bodies), **settings}
