"""One training in processes of its own: `accelerate launch … -m dadpo_bench.worker JOB`, and the side that starts them.

The processes know no store. The first of them tells its steps to the one that started them, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dadpo_bench import registry
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Checkpoint, Example, Job, Method

_MARK = "\x1edadpo-bench "
"""Begins a line that is meant for the starting side; all else on stdout is somebody's remark."""

_TOLD = ("report", "say")
_EXAMPLES = TypeAdapter(list[Example])


def launch(method: str, job: Job, options: Sequence[str]) -> Checkpoint:
    """Train `job` under `accelerate launch` with these options. Raises as the method does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        write_job(path, method, job)
        command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "dadpo_bench.worker", str(path)]
        errors: deque[str] = deque(maxlen=20)
        pipes: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "encoding": "utf-8",
            "errors": "replace",
        }
        with subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **pipes) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if not line.startswith(_MARK):
                        errors.append(line.rstrip())
                        continue
                    told = json.loads(line.removeprefix(_MARK))
                    match told["kind"]:
                        case "report":
                            job.report(told["step"], told["steps"], told["metrics"])
                        case "say":
                            job.say(told["line"])
                        case "done":
                            return Checkpoint.model_validate(told["checkpoint"])
                        case "UserError":
                            raise UserError(told["message"])
                        case "WorkError":
                            raise WorkError(told["message"])
            finally:
                if process.poll() is None and sys.exc_info()[0] is not None:
                    process.terminate()
    reason = next((line for line in reversed(errors) if "Error" in line), errors[-1] if errors else "no word")
    raise WorkError(f"the training's processes ended with {process.returncode}: {reason}")


def write_job(path: Path, method: str, job: Job) -> None:
    """Write what a worker reads."""
    values = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in _TOLD}
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = str(value)
        elif isinstance(value, Mapping):
            values[name] = dict(value)
    for name in ("examples", "validation"):
        values[name] = _EXAMPLES.dump_python(list(values[name]), mode="json")
    path.write_text(json.dumps({"method": method, **values}))


def _read_job(path: Path) -> tuple[Method, Job]:
    values = json.loads(path.read_text())
    method: Method = registry.methods.load(values.pop("method"))
    for name in ("start", "output", "teacher", "state", "cache"):
        values[name] = values[name] and Path(values[name])
    for name in ("examples", "validation"):
        values[name] = _EXAMPLES.validate_python(values[name])
    return method, Job(
        **values,
        report=lambda step, steps, metrics: _tell("report", step=step, steps=steps, metrics=dict(metrics)),
        say=lambda line: _tell("say", line=line),
    )


def _tell(kind: str, **values: Any) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{_MARK}{json.dumps({'kind': kind, **values})}", flush=True)


def main() -> None:
    """Train the job of the file that is named."""
    method, job = _read_job(Path(sys.argv[1]))
    try:
        checkpoint = method.train(job)
    except (UserError, WorkError) as error:
        _tell(type(error).__name__, message=str(error))
        raise SystemExit(1) from error
    _tell("done", checkpoint=checkpoint.model_dump(mode="json"))


if __name__ == "__main__":
    main()
