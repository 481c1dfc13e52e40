"""The paper's two settings, without their weights."""

from pathlib import Path

from dadpo_bench.plan import make_plan
from dadpo_bench.planning import Load, Shapes, loads, shapes_of
from dadpo_bench.recipe import load_recipe

CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
PAPER = {
    "vicuna-7b-pruned20": {"teacher": "vicuna-7b-v1.5"},
    "qwen2.5-1.5b-from-7b": {"teacher": "qwen2.5-7b-instruct", "student": "qwen2.5-1.5b"},
}


def paper_shapes(name: str) -> Shapes:
    """Sizes of a recipe's models."""
    return shapes_of(load_recipe(name), {role: CONFIGS / f"{file}.json" for role, file in PAPER[name].items()})


def paper_loads(
    name: str, *further: str, changes: tuple[str, ...] = (), seeds: int = 1, judge: str | None = None
) -> dict[str, Load]:
    """By stage and who; of the recipe's contestants and `further` ones."""
    recipe = load_recipe(name, changes, judge)
    plan = make_plan(recipe, [*recipe.methods, *further], seeds)
    return {f"{load.stage}/{load.who}": load for load in loads(plan)}
