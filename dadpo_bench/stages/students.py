"""Making models of models: the pruned student and every trained checkpoint, each made once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dadpo_bench import registry
from dadpo_bench.errors import Interrupted, WorkError
from dadpo_bench.interrupts import finishing
from dadpo_bench.left_behind import alive, left_behind, let_go, owner
from dadpo_bench.models import chat_tokenizer, find, training, weights_key
from dadpo_bench.models.loading import config_of, reading
from dadpo_bench.models.memory import release_memory
from dadpo_bench.models.pruning import prune
from dadpo_bench.recipe import Prune, Recipe, essence
from dadpo_bench.stages.bench import Bench, LocalModel
from dadpo_bench.store import insert_missing, schema
from dadpo_bench.tracking import tracked
from dadpo_bench.types import Example, Job, JsonObject, Prompt, content_key

PRUNER_VERSION = 1
"""Part of every pruned student's key: raise it when pruning changes weights, and with a default of `Prune`."""

TRAINER_VERSION = 4
"""Part of every checkpoint's key: raise it when the loop changes weights, and with a default of a method's."""


def student_of(bench: Bench, recipe: Recipe, prompts: Sequence[Prompt]) -> LocalModel:
    """The bare student: the recipe's own model, pruned where it says so, from the teacher where it names none."""
    source = find(recipe.student.model or recipe.teacher.model).absolute()
    template = recipe.student.chat_template or (None if recipe.student.model else recipe.teacher.chat_template)
    settings = recipe.student.prune
    chat_tokenizer(str(source), template)
    if settings is None:
        return note_model(bench, Path(recipe.student.model or "").name, source, template)
    calibration = prompts[: settings.examples]
    key = content_key(
        "prune", PRUNER_VERSION, weights_key(source), template, settings, [p.key for p in calibration], str(training())
    )
    output = bench.store.artefacts / f"student-{key[:8]}"

    def make(scratch: Path) -> JsonObject:
        with bench.reporter.bar(f"prune {source.name}", 1, "models") as bar:
            ((_, record),) = bench.engine.map(
                lambda: partial(_pruned, template, settings, calibration, source), [scratch], str
            )
            bar.advance()
        return record

    record = settings.model_dump(mode="json")
    return _derive(bench, key, "prune", "student", source, output, record, template, make)


def _pruned(
    template: str | None, settings: Prune, calibration: Sequence[Prompt], source: Path, output: Path
) -> JsonObject:
    return prune(
        source,
        chat_tokenizer(str(source), template),
        output,
        ratio=settings.ratio,
        importance=settings.importance,
        prompts=calibration,
        seed=settings.seed,
        groups=settings.groups,
    )


def train(
    bench: Bench,
    name: str,
    settings: Mapping[str, Any],
    start: LocalModel,
    teacher: LocalModel | None,
    examples: Sequence[Example],
    seed: int,
    *,
    validation: Sequence[Example] = (),
    sampled: bool,
    before: Callable[[], None] = lambda: None,
) -> LocalModel:
    """A contestant's checkpoint of one seed. `settings` are the validated ones, `method` among them.

    `teacher` is None where it is not on this machine, so that no method can look at its logits.
    `before` is called where there is something to train. A training that was killed goes on from its last saving. The
    first Ctrl-C lets it save once more and stop between two steps; one in processes of its own stops at once. Raises
    `Interrupted` where steps are lost.
    """
    method_name = settings["method"]
    entry = registry.methods[method_name]
    fixed = {k: v for k, v in settings.items() if k != "method"}
    live_teacher = teacher if "teacher_logits" in entry.signals else None
    chosen_on = validation if settings.get("select") == "best" else ()
    key = content_key(
        "train",
        essence(settings),
        start.key,
        start.chat_template,
        live_teacher.key if live_teacher else None,
        [[e.prompt.key, e.chosen, e.rejected, dict(e.signals)] for e in examples],
        sampled,
        seed,
        str(training()),
        TRAINER_VERSION,
        *([[[e.prompt.key, e.chosen, e.rejected, dict(e.signals)] for e in chosen_on]] if chosen_on else []),
    )
    label = f"train {name}, seed {seed}"
    output = bench.store.artefacts / f"{name}-seed{seed}-{key[:8]}"

    stop, done, ending = _Stop(bench), 0, ExitStack()

    def make(scratch: Path) -> JsonObject:
        before()
        ending.enter_context(finishing(stop.finish))
        trackers = bench.store.artefacts / "trackers"
        with (
            bench.reporter.bar(label, 1, "steps", key) as bar,
            tracked(bench.tracker, f"{name}-seed{seed}", key, settings, trackers) as track,
        ):

            def report(step: int, steps: int, values: JsonObject) -> None:
                nonlocal done
                done = step
                row = {"derivation_key": key, "step": step, "values": dict(values)}
                with bench.store.write() as session:
                    insert_missing(session, schema.Metric, [row])
                track(step, values)
                bar.reach(step, steps, f"loss {values['loss']:.4f}" if "loss" in values else "")

            checkpoint = bench.engine.train(
                method_name,
                Job(
                    start=start.directory,
                    output=scratch,
                    examples=examples,
                    settings=fixed,
                    seed=seed,
                    teacher=live_teacher.directory if live_teacher else None,
                    sampled_ids=sampled,
                    chat_template=start.chat_template,
                    validation=validation,
                    state=_state(output),
                    cache=bench.store.artefacts / "teacher-logits",
                    report=report,
                    say=lambda line: bench.reporter.say(f"    {line}"),
                    stop=stop,
                ),
            )
        return checkpoint.model_dump(mode="json", exclude={"path"})

    with ending:
        try:
            model = _derive(
                bench, key, "train", name, start.directory, output, dict(settings), start.chat_template, make
            )
        except KeyboardInterrupt as error:
            saved = _saved_step(output)
            if saved < done:
                how = f"goes on behind step {saved}" if saved else "begins anew"
                raise Interrupted(f"with the same command {label} {how}") from error
            raise
        _drop_state(output)
    return model


class _Stop:
    """The first Ctrl-C within a training. One that never asks whether to stop is stopped at once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._heard = self._wanted = False

    def __call__(self) -> bool:
        """Asked by the training, as `Job.stop`."""
        self._heard = True
        return self._wanted or self._bench.stopping.is_set()

    def finish(self) -> None:
        """As `finishing` wants it."""
        if not self._heard:  # there is nothing to save yet, or nobody who would
            raise KeyboardInterrupt
        self._wanted = True
        self._bench.reporter.say("    stopping where it can go on; Ctrl-C again stops at once")


def _derive(
    bench: Bench,
    key: str,
    kind: str,
    name: str,
    source: Path,
    output: Path,
    settings: Mapping[str, Any],
    template: str | None,
    make: Callable[[Path], JsonObject],
) -> LocalModel:
    """Make a model in a scratch directory, move it into place, then note it: a kill leaves nothing half-made."""
    with bench.store.read() as session:
        known = session.get(schema.Derivation, key)
    if known is not None and output.is_dir():
        return LocalModel(name, output, known.model_key, template)
    began = time.monotonic()
    bench.reporter.owes(f"{kind} {name}")
    try:
        with _scratch(output) as scratch:
            _check_space(scratch, parameters_of(source))
            record = make(scratch)
            release_memory()
            _move(scratch, output)
    except Exception as error:
        # tokenizers, written in Rust, tells of a full disk by a bare Exception that ends in "(os error 28)".
        if isinstance(error, OSError | SafetensorError) or "(os error " in str(error):
            raise WorkError(f"cannot make {output}: {getattr(error, 'strerror', None) or error}") from error
        raise
    model = note_model(bench, name, output, template)
    row = schema.Derivation(
        key=key,
        kind=kind,
        model_key=model.key,
        settings=dict(settings),
        seconds=time.monotonic() - began,
        record=dict(record),
    )
    with bench.store.write() as session:
        session.merge(row)
    return model


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A directory of this process's own beside `output`; those of processes that were killed are cleared away."""
    output.parent.mkdir(parents=True, exist_ok=True)
    for stale in left_behind(output.parent, ".*.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    scratch = output.with_name(f".{output.name}.{owner()}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with alive(scratch, _own_state(output)):
            yield scratch
    except BaseException:
        let_go(_own_state(output))
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _state(output: Path) -> Path:
    """Where the state of the training behind `output` lies: of killed processes' the one that was written last."""
    folder = _own_state(output)
    left = sorted(left_behind(folder.parent, f"{output.name}.*"), key=lambda path: path.stat().st_mtime)
    for path in left[:-1]:
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError, IndexError):  # another process was quicker, or nobody was killed
        left[-1].rename(folder)
        os.utime(folder)  # from here on it is this process's
    return folder


def _own_state(output: Path) -> Path:
    return output.parent / "unfinished" / f"{output.name}.{owner()}"


def _saved_step(output: Path) -> int:
    """The last step whose state is kept, 0 where none is."""
    return max((int(path.name.removeprefix("step-")) for path in _own_state(output).glob("step-*")), default=0)


def _drop_state(output: Path) -> None:
    folder = _own_state(output)
    for path in (folder, *left_behind(folder.parent, f"{output.name}.*")):
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # others are unfinished, or there is none
        folder.parent.rmdir()


def _check_space(folder: Path, parameters: int) -> None:
    """Refuse before the work, not behind it, where a checkpoint in fp32 would not fit."""
    free, needed = shutil.disk_usage(folder).free, 4 * parameters
    if free < needed:
        raise WorkError(
            f"{folder.parent} has {free / 1e6:,.1f} MB left and a checkpoint takes {needed / 1e6:,.1f} MB; "
            "free some and run the same command again"
        )


def _move(scratch: Path, output: Path) -> None:
    """Put a finished model in its place; one that another run put there meanwhile is the same and stays."""
    if output.is_dir():
        if weights_key(output) == weights_key(scratch):
            return
        shutil.rmtree(output)
    scratch.rename(output)


def note_model(bench: Bench, name: str, directory: Path, template: str | None) -> LocalModel:
    """A model on disk, by its content; the store keeps what it is."""
    key = weights_key(directory)
    row = {"key": key, "name": name, "parameters": parameters_of(directory), "config": config_of(directory)}
    with bench.store.write() as session:
        insert_missing(session, schema.Model, [row])
    return LocalModel(name, directory.absolute(), key, template)


def parameters_of(directory: Path) -> int:
    """Parameters in a model's safetensors files, read from their headers alone."""
    total = 0
    for path in directory.glob("*.safetensors"):
        with reading(directory, "weights"), safe_open(path, framework="numpy") as file:
            for tensor in file.keys():  # noqa: SIM118 - no mapping, only keys()
                size = 1
                for side in file.get_slice(tensor).get_shape():
                    size *= side
                total += size
    return total
