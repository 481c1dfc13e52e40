"""Recipes: everything a run depends on, in YAML validated by pydantic, with `--set key=value` on top."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dadpo_bench import registry
from dadpo_bench.errors import UserError
from dadpo_bench.teacher import PLACES, Teacher
from dadpo_bench.types import Sampling, content_key

DEFAULT = "smollm2-135m-pruned20"
"""The recipe of `dadpo-bench run` when none is named."""

PROTOCOL_VERSION = 1
"""Part of every protocol's key: raise it with a default of a recipe's parts."""

FIRST = "sft"
"""The contestant that is dSFT: reference and starting point of every preference method."""


class Part(BaseModel):
    """Base of the recipe's parts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prune(Part):
    """Structured pruning of the teacher's MLP width, and of its key-value groups."""

    ratio: float = Field(gt=0, lt=0.9, description="Share of all parameters to remove; met within 0.5 points.")
    importance: Literal["taylor", "magnitude"] = Field(
        "taylor", description="How a neuron's or group's worth is measured."
    )
    examples: int = Field(32, ge=1, description="Training prompts on which Taylor importance is measured.")
    seed: int = Field(0, description="Chooses those prompts.")
    groups: int = Field(
        0, ge=0, description="Key-value heads, with their query heads, each layer loses; the MLP makes up the ratio."
    )


class Student(Part):
    """The small model: one of its own, or the teacher pruned."""

    model: str | None = Field(None, description="As the teacher's `model`; leave out to prune the teacher.")
    prune: Prune | None = Field(None, description="How to make the student from the teacher (or from `model`).")
    chat_template: str | None = Field(None, description="As the teacher's.")

    @model_validator(mode="after")
    def _something(self) -> Student:
        if self.model is None and self.prune is None:
            raise ValueError("name a model, or say how to prune the teacher (prune: {ratio: 0.2})")
        return self


class Shares(Part):
    """How a data set without splits of its own is split, by content: adding rows moves no row to another split."""

    train: float = Field(0.9, ge=0, le=1, description="Share of the training prompts.")
    validation: float = Field(0.05, ge=0, le=1, description="Share of the prompts measured while training.")
    heldout: float = Field(0.05, ge=0, le=1, description="Share of the held-out prompts.")
    seed: int = Field(0, description="Another one makes other splits.")

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        if abs(self.train + self.validation + self.heldout - 1) > 1e-9:
            raise ValueError("train, validation and heldout are shares of one whole: they add up to 1")
        return self


_TASK = "A registered task, a file or folder of prompts (JSON, JSONL, Parquet, CSV), or a data set of the hub."
_DATA = "File or folder in which this task's files lie; left out: fetched once from where they are published."
_SHARES = "Splits a file or data set by content; the same shares and seed give disjoint splits everywhere."


class Prompts(Part):
    """The training prompts."""

    task: str = Field(description=_TASK)
    data: str | None = Field(None, description=_DATA)
    split: Shares | None = Field(None, description=_SHARES + " Held-out tasks of the same name take theirs from it.")
    train: int | None = Field(None, ge=1, description="Use the first so many; leave out for all.")
    validation: int = Field(
        0,
        ge=0,
        description="Prompts measured while training, never learnt from: of the task's validation split, "
        "of a file without `split` those behind its `train` first. Part of the protocol: others make another board.",
    )

    allow_contamination: bool = Field(
        False, description="Whether held-out prompts may be among the training prompts, or nearly so."
    )


class TaskChoice(Part):
    """A held-out task."""

    prompts: int | None = Field(None, ge=1, description="Use the first so many; leave out for all.")
    data: str | None = Field(None, description=_DATA)
    split: Shares | None = Field(None, description=_SHARES)
    domain: Literal["in", "out"] | None = Field(
        None, description="Shown on the board. Left out: a registered task's own; `out` for a file."
    )


class Evaluation(Part):
    """How contestants answer held-out prompts, and the samples behind the KL columns."""

    sampling: Sampling = Field(Sampling(temperature=0.0), description="Greedy unless a recipe says otherwise.")
    by_category: bool = Field(
        True,
        description="Whether a task whose authors say at which temperature each category is answered is answered so.",
    )
    canary_prompts: int = Field(16, ge=2, description="Held-out prompts a canary answers, of the first task.")
    kl_prompts: int = Field(16, ge=0, description="Prompts of each task sampled for the KL columns; 0 for none.")


class EngineChoice(Part):
    """Where the work runs. No part of any key: the same results come from everywhere."""

    name: Literal["local", "ray"] = Field("local", description="This process, or a Ray cluster.")
    address: str | None = Field(
        None,
        description="Of a cluster: `HOST:PORT` on one of its machines, `ray://HOST:PORT` from elsewhere, `auto` for "
        "the one that this machine is part of. Left out: RAY_ADDRESS, else Ray is started on this machine.",
    )
    workers: int | None = Field(None, ge=1, description="Models at work at a time; left out, as many as fit.")
    cpus_per_worker: float = Field(1, gt=0, description="Processor cores of a worker, and of a training.")
    gpus_per_worker: float | None = Field(None, ge=0, description="Left out: 1 where the cluster has GPUs.")
    gpus_per_training: int | None = Field(
        None, ge=0, description="Left out: 1 where the cluster has GPUs; with more, Ray Train shares a training out."
    )
    artefacts: str | None = Field(
        None, description="Folder of checkpoints that every machine sees at this path. Left out: beside the store."
    )


class Contestant(BaseModel):
    """A method with settings, under the name it has on the board."""

    model_config = ConfigDict(frozen=True, extra="allow")

    method: str = Field(description="A registered method; other keys are its settings.")

    @property
    def settings(self) -> dict[str, Any]:
        """What the method's config class validates."""
        return dict(self.__pydantic_extra__ or {})


ContestantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]{0,63}$")]
"""Part of a checkpoint's path: letters, digits and `_.+-`, and no dot first."""


class Recipe(Part):
    """Everything a run depends on. Contestants are comparable under equal `protocol()`s."""

    name: str = Field(description="Shown on the board.")
    summary: str = Field("", description="One line for `dadpo-bench list recipes`.")
    seed: int = Field(0, ge=0, lt=2**31, description="First training seed; `--seeds n` adds those after it.")
    teacher: Teacher
    student: Student
    prompts: Prompts
    teacher_sampling: Sampling = Field(Sampling(), description="How the teacher answers the training prompts.")
    student_sampling: Sampling = Field(Sampling(), description="How dSFT answers them, for the rejected side.")
    methods: dict[ContestantName, Contestant] = Field(
        description="Contestants by name; one of them must be `sft` (dSFT)."
    )
    tasks: dict[str, TaskChoice] = Field(description="Held-out tasks, each named as the training prompts' `task` is.")
    evaluation: Evaluation = Evaluation()
    judge: str = Field("pmi", description="A registered judge, `name` or `name:argument`.")
    judge_settings: dict[str, Any] = Field({}, description="Settings of that judge.")
    orders: Literal["both", "random"] = Field(
        "both",
        description="Orders in which a pairwise judge sees two responses: both, or one drawn for each pair, which "
        "costs half and cannot tell a judge's position bias.",
    )

    engine: EngineChoice = EngineChoice()

    @model_validator(mode="after")
    def _has_dsft(self) -> Recipe:
        if FIRST not in self.methods or self.methods[FIRST].method != FIRST:
            raise ValueError(f"methods: needs `{FIRST}: {{method: sft, …}}`, where preference methods start")
        if reserved := {"teacher", "student"} & self.methods.keys():
            raise ValueError(f"methods: '{reserved.pop()}' is the name of a model of the recipe; choose another")
        if not self.tasks:
            raise ValueError("tasks: name at least one held-out task")
        if self.student.model is None and self.teacher.endpoint is not None:
            raise ValueError(
                "student: it cannot be pruned from a teacher whose weights are behind an endpoint; name student.model"
            )
        return self

    def protocol(self) -> dict[str, Any]:
        """What all contestants share; its hash groups rows on a board. Judge and seeds are not in it."""
        shared = self.model_dump(mode="json", exclude={**_NOT_SHARED, "teacher": PLACES}, exclude_none=True)
        return {**shared, "dsft": self.method_settings(FIRST)}

    def protocol_key(
        self, contents: Sequence[Any], identity: Callable[[str], str], tokenizer_identity: Callable[[str], str] = str
    ) -> str:
        """Content hash of what `protocol()` says: prompts and models by their content; no defaults, no names.

        `contents` are the tasks' keys, and what else there is to a task, such as temperatures of its own.
        """
        names = dict.fromkeys(("name", "prompts", "tasks"), True)
        shared = self.model_dump(
            mode="json", exclude={**_NOT_SHARED, **names, "teacher": PLACES}, exclude_defaults=True
        )
        served = self.teacher.endpoint is not None
        for role in ("student",) if served else ("teacher", "student"):
            if "model" in shared[role]:
                shared[role]["model"] = identity(shared[role]["model"])
        if self.teacher.tokenizer is not None:
            shared["teacher"]["tokenizer"] = tokenizer_identity(self.teacher.tokenizer)
        if served and not self.teacher.vouched:
            shared["teacher"]["host"] = self.teacher.host
        dsft = essence(self.method_settings(FIRST))
        return content_key("protocol", PROTOCOL_VERSION, shared, dsft, list(contents))

    def including(self, contestants: Sequence[str]) -> Recipe:
        """With registered methods that it does not name as contestants of their own names, at their defaults."""
        added = {
            c: Contestant(method=c) for c in contestants if c not in self.methods and c in registry.methods.names()
        }
        return self.model_copy(update={"methods": {**self.methods, **added}})

    def reading(self, data: str) -> Recipe:
        """With the files of published tasks in `data`, where the recipe does not say where they lie.

        Raises `UserError` where no task needs it, or several need the one file.
        """
        known = registry.tasks.names()
        parts: dict[str, Prompts | TaskChoice] = {"": self.prompts, **self.tasks}
        needy = [
            key
            for key, part in parts.items()
            if (name := key or self.prompts.task) in known and registry.tasks[name].repository and part.data is None
        ]
        if not needy:
            raise UserError("--data: every task of the recipe has its prompts already")
        if len({key or self.prompts.task for key in needy}) > 1 and Path(data).expanduser().is_file():
            raise UserError(f"--data {data}: several tasks read files; name the folder that holds them")
        placed = {key: parts[key].model_copy(update={"data": data}) for key in needy}
        prompts = placed.pop("", self.prompts)
        return self.model_copy(update={"prompts": prompts, "tasks": {**self.tasks, **placed}})

    def named(self, contestant: str) -> Contestant:
        """A contestant by its name; imports no method. Raises `UserError` for an unknown contestant or method."""
        if contestant not in self.methods:
            known = sorted({*self.methods, *registry.methods.names()})
            raise UserError(registry.unknown("method", contestant, known))
        chosen = self.methods[contestant]
        registry.methods[chosen.method]  # raises, naming near ones
        return chosen

    def method_settings(self, contestant: str) -> dict[str, Any]:
        """The full validated settings of a contestant, the method's name included.

        Raises `UserError` for an unknown contestant, method or setting.
        """
        chosen = self.named(contestant)
        config = method_config(chosen.method, chosen.settings, f"methods.{contestant}")
        settings = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
        return {"method": chosen.method, **settings}


_NOT_SHARED = dict.fromkeys(("methods", "judge", "judge_settings", "orders", "summary", "seed", "engine"), True)


def method_config(method: str, settings: Mapping[str, Any], where: str = "") -> BaseModel | dict[str, Any]:
    """The settings as the method's config class reads them; as given where it declares none.

    Raises `UserError` for an unknown method or setting.
    """
    entry = registry.methods[method]
    if not entry.config:
        return dict(settings)
    config: type[BaseModel] = registry.resolve(entry.config)
    try:
        return config.model_validate(dict(settings))
    except ValidationError as error:
        raise UserError(explain(error, where or method, list(config.model_fields))) from error


def essence(settings: Mapping[str, Any]) -> list[Any]:
    """Of a contestant's full settings, what belongs into keys: its method and what differs from the defaults.

    How often validation is measured decides something only where the best weights are chosen by it. Of a model that
    no method trained all settings do.
    """
    if "method" not in settings:
        return [dict(settings)] if settings else []
    method = settings["method"]
    idle = {"method"} if settings.get("select") == "best" else {"method", "validations"}
    return [method, method_config(method, {k: v for k, v in settings.items() if k not in idle})]


def explain(error: ValidationError, where: str, known: Sequence[str] = ()) -> str:
    """The first validation error as one line with its dotted place."""
    first = error.errors(include_url=False)[0]
    place = ".".join([where, *(str(part) for part in first["loc"])]).strip(".")
    if first["type"] == "extra_forbidden":
        leaf = str(first["loc"][-1])
        return f"{place}: {registry.unknown('setting', leaf, sorted(known))}" if known else f"{place}: unknown setting"
    more = len(error.errors()) - 1
    said = _plainly(first) + (f" (and {more} more)" if more else "")
    return f"{place}: {said}" if place else said


_EXPECTED = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "fields by name"),
    **dict.fromkeys(("int_type", "int_parsing"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
}
"""By pydantic's type of an error, which speaks of Python: what should be there."""

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    ((list, tuple), "a list"),
    (Mapping, "fields by name"),
)


def _plainly(error: Mapping[str, Any]) -> str:
    kind, given = error["type"], error["input"]
    if kind == "missing":
        return "it is missing"
    if kind in ("literal_error", "enum"):
        return f"{error['ctx']['expected']} expected, not {str(given)[:40]!r}"
    if kind not in _EXPECTED:
        return str(error["msg"].removeprefix("Value error, "))
    return (
        f"{_EXPECTED[kind]} expected, not {next((name for one, name in _KINDS if isinstance(given, one)), 'nothing')}"
    )


def shipped() -> dict[str, Path]:
    """Recipes that come with the program, by name."""
    folder = Path(str(resources.files("dadpo_bench") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(
    name: str = DEFAULT, changes: Sequence[str] = (), judge: str | None = None, contestants: Sequence[str] = ()
) -> Recipe:
    """A shipped recipe's name or a YAML file, with another judge and `dotted.key=value` changes, in this order.

    Another judge than the file's does not get the settings that the file holds for its own.

    Raises `UserError` for an unknown name (the recipe's, a method's, the judge's, one of `contestants`, which are to be
    trained), for invalid YAML, an unknown key or a value of the wrong type.
    """
    files = shipped()
    path = files.get(name) or Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{name} is a directory; name a recipe's YAML file")
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or "/" in name:
            raise UserError(f"no recipe file {name}")
        raise UserError(registry.unknown("recipe", name, list(files)))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML (nested too deeply)") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{at}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a recipe is a YAML mapping")
    if name not in files:
        _beside(content, path.parent)
    if judge is not None:
        if _kind(judge) != _kind(content.get("judge", "")):
            content.pop("judge_settings", None)
        content["judge"] = judge
    for change in changes:
        apply_change(content, change)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"recipe {name}: {explain(error, '', _siblings(error))}") from error
    # Names first: whoever reads a method's settings imports torch.
    asked = recipe.including(contestants)
    for contestant in (*asked.methods, *contestants):
        asked.named(contestant)
    registry.judges[_kind(recipe.judge)]  # raises, naming near ones
    for contestant in recipe.methods:
        recipe.method_settings(contestant)
    return recipe


def _beside(content: dict[str, Any], folder: Path) -> None:
    """Files and model directories that lie beside the recipe are named by their own path."""

    def place(name: Any) -> Any:
        return str(folder / name) if isinstance(name, str) and name and (folder / name).exists() else name

    tasks = content.get("tasks")
    teacher = content.get("teacher")
    served = isinstance(teacher, dict) and "endpoint" in teacher
    chosen = [content.get("prompts"), *(tasks.values() if isinstance(tasks, dict) else ())]
    places = [
        (content.get("prompts"), "task"),
        *((part, "data") for part in chosen),
        *((teacher, key) for key in ("tokenizer", "weights", *(() if served else ("model",)))),
        (content.get("student"), "model"),
    ]
    judging = content.get("judge_settings")
    members = judging.get("members") if isinstance(judging, dict) else None
    seats = members if isinstance(members, list) else []
    judged = [judging, *(seat.get("settings") for seat in seats if isinstance(seat, dict))]
    for part, key in [*places, *((settings, "template") for settings in judged)]:
        if isinstance(part, dict) and key in part:
            part[key] = place(part[key])
    if isinstance(tasks, dict):
        content["tasks"] = {place(name): choice for name, choice in tasks.items()}


def _kind(judge: Any) -> str:
    return str(judge).partition(":")[0]


def apply_change(content: dict[str, Any], change: str, option: str = "--set") -> None:
    """Set what `dotted.key=value` says, the value in YAML. Raises `UserError`, naming the option that gave it."""
    key, equals, value = change.partition("=")
    if not equals or not re.fullmatch(r"[\w./:-]+", key):
        raise UserError(f"{option} {change}: write it as dotted.key=value")
    *path, last = key.split(".")
    place = content
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise UserError(f"{option} {change}: '{part}' has no settings of its own")
    try:
        place[last] = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{option} {change}: '{value}' is not a valid value") from error


def _siblings(error: ValidationError) -> list[str]:
    """Names that stand where an unknown one was found, for "did you mean"."""
    model: Any = Recipe
    for part in error.errors()[0]["loc"][:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)
