"""Sizes of a recipe's models, from their configs alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dadpo_bench.errors import UserError
from dadpo_bench.models.loading import find_config, reading
from dadpo_bench.models.shape import Shape, hollow_model, shape_of
from dadpo_bench.planning.load import Role
from dadpo_bench.recipe import Recipe


class Shapes(NamedTuple):
    """Sizes of the recipe's models."""

    teacher: Shape | None
    """None where it is served elsewhere."""
    student: Shape
    parent: Shape
    """What the student is pruned from; the student itself where it is not."""

    def of(self, role: Role) -> Shape:
        """Of one of them; the teacher only where it computes on this machine."""
        found = {"teacher": self.teacher, "student": self.student, "parent": self.parent}[role]
        if found is None:
            raise ValueError("a teacher that is served computes nothing here")
        return found


def shapes_of(recipe: Recipe, configs: Mapping[str, Path]) -> Shapes:
    """Sizes of the recipe's models. `configs`: by role, a config.json to read instead of the model's own.

    Raises `UserError` where a config cannot be had or read, or where the model cannot be pruned so.
    """
    sources = {"teacher": recipe.teacher.model, "student": recipe.student.model}
    served = recipe.teacher.endpoint is not None
    if served and "teacher" in configs:
        raise UserError("--config teacher=…: this recipe's teacher is served, so its size decides nothing here")
    if "student" in configs and not sources["student"]:
        raise UserError("--config student=…: this recipe's student is pruned from its teacher")

    def shape(role: str, prune: tuple[float, int] | None = None) -> Shape:
        path = configs.get(role) or find_config(str(sources[role])) / "config.json"
        with reading(path, "config"):
            try:
                return shape_of(hollow_model(json.loads(path.read_text()), prune))
            except RuntimeError as error:  # torch, of sizes that no tensor has
                raise UserError(f"{path}: no such model can be ({error})") from error

    teacher, prune = None if served else shape("teacher"), recipe.student.prune
    parent = teacher or shape("student") if not sources["student"] else shape("student")
    pruned = prune and shape("student" if sources["student"] else "teacher", (prune.ratio, prune.groups))
    return Shapes(teacher, pruned or parent, parent)
