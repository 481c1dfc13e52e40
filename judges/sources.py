"""Where a template comes from: a registered name, or a TOML file."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.recipe import explain
from dadpo_bench.registry import unknown
from judges.template import Body, Template

Kind = Literal["pairwise", "pointwise"]


def load(name: str, kind: Kind = "pairwise") -> Template:
    """The template of that name, for a judge of that kind.

    `name` is a registered template, or a file that ends in `.toml`.

    Raises `UserError` where there is none, where it is no valid template, or one for another kind of judge.
    """
    try:
        settings, contents = _read(name)
        template = Template(**settings, sha256=_sha256(contents))
    except ValidationError as error:
        raise UserError(explain(error, f"judge template {name}", list(Template.model_fields))) from error
    except KeyError as error:
        raise UserError(f"judge template {name}: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"judge template {name}: {str(error).splitlines()[0]}") from error
    if template.kind != kind:
        other = "chat" if template.kind == "pairwise" else "chat-score"
        raise UserError(f"judge template {name} is {template.kind}: it is for --judge {other}")
    return template


def _read(name: str) -> tuple[Mapping[str, Any], list[bytes]]:
    """A template's settings and the bytes of the files they came from."""
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"no judge template {name}")
        content = path.read_bytes()
        return _toml(content), [content]
    if name in registry.templates.names():
        package, _, file = registry.templates[name].target.partition(":")
        content = (files(package) / file).read_bytes()
        return _toml(content), [content]
    raise UserError(unknown("judge template", name, registry.templates.names()))


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
