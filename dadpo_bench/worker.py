"""One training in processes of its own: `accelerate launch … -m dadpo_bench.worker JOB`, and the side that starts them.

The processes know no store. They tell their steps and errors in a file beside the job, a line of JSON each; what they
and their libraries print goes elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter

from dadpo_bench import registry
from dadpo_bench.errors import UserError, WorkError
from dadpo_bench.types import Checkpoint, Example, Job, Method

LOOK_SECONDS = 0.1
"""Between two looks at what is told."""

_HERE = ("report", "say", "stop")
"""Of a job what stays with the starting side."""
_EXAMPLES = TypeAdapter(list[Example])


def check_options(options: Sequence[str]) -> None:
    """Raises `UserError` for options that `accelerate launch` does not take."""
    from accelerate.commands.launch import launch_command_parser

    parser = launch_command_parser()

    def error(message: str) -> None:
        raise UserError(f"--launch: {message}; see accelerate launch --help")

    parser.error = error
    parser.parse_args([*options, "worker"])


def launch(method: str, job: Job, options: Sequence[str]) -> Checkpoint:
    """Train `job` under `accelerate launch` with these options. Raises as the method does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder / "job.json", method, job)
        command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "dadpo_bench.worker"]
        with (folder / "output").open("wb") as output, _group([*command, str(folder / "job.json")], output) as process:
            for told in _told(folder / "job.told", process):
                match told["kind"]:
                    case "report":
                        job.report(told["step"], told["steps"], told["metrics"])
                    case "say":
                        job.say(told["line"])
                    case "done":
                        return Checkpoint.model_validate(told["checkpoint"])
                    case "UserError":
                        raise UserError(told["message"])
                    case _:
                        raise WorkError(told["message"])
        lines = (folder / "output").read_text(errors="replace").split("\n")
    reason = next((line for line in reversed(lines) if "error" in line.lower()), "it said nothing")
    raise WorkError(f"the training's processes ended with {process.returncode}: {reason.strip()}")


@contextmanager
def _group(command: Sequence[str], output: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process with children, all of which end with the block: the launcher hands no signal on."""
    with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            yield process
            process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _told(path: Path, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What is told, line by line, until the process is over and everything is read."""
    read = 0
    while True:
        over = process.poll() is not None
        told = path.read_bytes() if path.exists() else b""
        whole = told.rfind(b"\n") + 1
        for line in told[read:whole].split(b"\n")[:-1]:
            yield json.loads(line)
        read = max(read, whole)
        if over:
            return
        time.sleep(LOOK_SECONDS)


def write_job(path: Path, method: str, job: Job) -> None:
    """Write what a worker reads."""
    values = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in _HERE}
    for name, value in values.items():
        if isinstance(value, Path):
            values[name] = str(value)
        elif isinstance(value, Mapping):
            values[name] = dict(value)
    for name in ("examples", "validation"):
        values[name] = _EXAMPLES.dump_python(list(values[name]), mode="json")
    path.write_text(json.dumps({"method": method, "starter": os.getpid(), **values}))


class _Teller:
    """Tells the starting side, and ends where that is no more."""

    def __init__(self, path: Path, starter: int) -> None:
        self._path, self._starter = path.with_suffix(".told"), starter
        self._first = int(os.environ.get("RANK", "0")) == 0

    def __call__(self, kind: str, *, anyone: bool = False, **values: Any) -> None:
        """Of a step, a remark or the end the first process tells; of an error any."""
        if not psutil.pid_exists(self._starter):
            raise SystemExit("whoever started this training is gone")
        if self._first or anyone:
            line = json.dumps({"kind": kind, **values}).encode() + b"\n"
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # one write, so that no two mix
            os.write(file, line)
            os.close(file)


def main() -> None:
    """Train the job of the file that is named."""
    path = Path(sys.argv[1])
    values = json.loads(path.read_text())
    tell = _Teller(path, values.pop("starter"))
    try:
        method: Method = registry.methods.load(values.pop("method"))
        for name in ("start", "output", "teacher", "state", "cache"):
            values[name] = values[name] and Path(values[name])
        for name in ("examples", "validation"):
            values[name] = _EXAMPLES.validate_python(values[name])
        job = Job(
            **values,
            report=lambda step, steps, metrics: tell("report", step=step, steps=steps, metrics=dict(metrics)),
            say=lambda line: tell("say", line=line),
        )
        tell("done", checkpoint=method.train(job).model_dump(mode="json"))
    except Exception as error:
        mistake = isinstance(error, UserError | WorkError)
        message = str(error) if mistake else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        tell(type(error).__name__ if mistake else "WorkError", anyone=True, message=message)
        raise


if __name__ == "__main__":
    main()
