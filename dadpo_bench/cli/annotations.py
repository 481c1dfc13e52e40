"""Types and values of settings as people write them in a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def written_type(annotation: Any) -> str:
    """E.g. `float | null`, `last | best`, `[float, float]`, `[str, …]`, `{rank: int, alpha: float}`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return "null"
    if annotation is Any:
        return "anything"
    if origin is Annotated:
        return written_type(parts[0])
    if origin is Literal:
        return " | ".join(map(written, parts))
    if origin in (Union, UnionType):
        return " | ".join(map(written_type, parts))
    if origin is tuple and Ellipsis not in parts:
        return f"[{', '.join(map(written_type, parts))}]"
    if origin in (tuple, list, set, frozenset, Sequence):
        return f"[{written_type(parts[0])}, …]"
    if origin in (dict, Mapping):
        return f"{{{': '.join(map(written_type, parts))}, …}}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = [f"{name}: {written_type(field.annotation)}" for name, field in annotation.model_fields.items()]
        return f"{{{', '.join(fields)}}}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(written(member.value) for member in annotation)
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def written(value: Any) -> str:
    """E.g. `pairwise`, `1e-05`, `null`, `true`, `""`."""
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
