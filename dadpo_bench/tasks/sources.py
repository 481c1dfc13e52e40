"""Where a published task's files lie: named by the user, in the cache, or fetched once and noted there.

The revision is what the hub or GitHub said at the first download; nothing here knows one beforehand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from dadpo_bench.errors import UserError
from dadpo_bench.places import cache_dir
from dadpo_bench.registry import SourceFile, TaskEntry
from dadpo_bench.tasks.columns import from_records

NOTE = "source.json"
"""Beside the fetched files: repository, revision, each file's sha256, the day."""


def folder_of(entry: TaskEntry) -> Path:
    """Where a task's files are kept, fetched or put there by hand."""
    return cache_dir() / "tasks" / entry.name


def note_of(entry: TaskEntry) -> dict[str, Any] | None:
    """What was noted at the first download; None before it."""
    path = folder_of(entry) / NOTE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def files_of(entry: TaskEntry, split: str, data: Path | None = None) -> list[Path]:
    """The files of one split in the order of `entry.files`: of `data`, else of the cache, else fetched into it.

    Raises `UserError` where `data` lacks one, and where one cannot be fetched.
    """
    wanted = entry.files[split]
    if data is not None:
        return _given(entry, split, data)
    folder = folder_of(entry)
    found, missing = _found(entry, wanted, folder)
    if missing or not found:
        fetch(entry, split)
        found, missing = _found(entry, wanted, folder)
    if missing:
        raise UserError(f"task '{entry.name}': {entry.repository} has no {missing[0].path} any more")
    return found


def _given(entry: TaskEntry, split: str, data: Path) -> list[Path]:
    first, *rest = entry.files[split]
    if data.is_dir():
        found, missing = _found(entry, entry.files[split], data)
    elif data.is_file():
        if len(set(entry.files.values())) > 1 and not any(_is(data, name) for name in (first.path, *first.aliases)):
            raise UserError(
                f"task '{entry.name}': {data} is no {first.path}; name the folder that holds the files of all splits"
            )
        found, missing = _found(entry, rest, data.parent)
        found.insert(0, data)
    else:
        raise UserError(f"task '{entry.name}': no file or folder {data}")
    if missing:
        names = " and ".join(PurePosixPath(file.path).name for file in missing)
        where = f"beside {data}" if data.is_file() else f"into {data}"
        raise UserError(f"task '{entry.name}' needs {names} of {entry.repository}: put it {where}")
    return found


def _is(path: Path, pattern: str) -> bool:
    name = PurePosixPath(pattern).name
    return fnmatch(path.name, name) or fnmatch(path.stem, PurePosixPath(name).stem)


def _found(entry: TaskEntry, wanted: Sequence[SourceFile], folder: Path) -> tuple[list[Path], list[SourceFile]]:
    """The files that are there, and the required ones that are not."""
    found: list[Path] = []
    missing: list[SourceFile] = []
    for file in wanted:
        paths = next(filter(None, _tried(entry, file, folder)), [])
        found += paths
        if not paths and file.required:
            missing.append(file)
    return found, missing


def _tried(entry: TaskEntry, file: SourceFile, folder: Path) -> Iterator[list[Path]]:
    """As in the repository; in a folder of the task's name; under a name of its own; under its bare name."""
    bare = PurePosixPath(file.path).name
    for pattern in (file.path, f"{entry.name}/{bare}", *file.aliases):
        yield from (sorted(folder.glob(pattern)), sorted((folder / entry.name).glob(pattern)))
    yield sorted(folder.glob(bare))


def fetch(entry: TaskEntry, split: str) -> None:
    """Bring the files of a split into the cache and note where they come from; later splits at the same revision.

    Raises `UserError` with the files to fetch by hand, and where to put them.
    """
    folder, wanted = folder_of(entry), entry.files[split]
    kind, _, repository = entry.repository.partition(":")
    noted = note_of(entry) or {}
    folder.mkdir(parents=True, exist_ok=True)
    download = {"hub": _from_hub, "github": _from_github}[kind]
    try:
        revision = download(repository, wanted, folder, noted.get("revision"))
    except Exception as error:  # the clients raise many unrelated types
        names = ", ".join(file.path for file in wanted if file.required)
        where = f"https://huggingface.co/datasets/{repository}" if kind == "hub" else f"https://github.com/{repository}"
        raise UserError(
            f"task '{entry.name}' cannot be fetched ({_reason(error)}): put {names} of {where} into {folder}, "
            "or name the folder that holds them by --data"
        ) from error
    found, _ = _found(entry, wanted, folder)
    note = {
        "repository": entry.repository,
        "revision": revision,
        "fetched": noted.get("fetched", _today()),
        "files": {**noted.get("files", {}), **{str(p.relative_to(folder)): _sha256(p) for p in found}},
    }
    _note(folder, note)


def _from_hub(repository: str, wanted: Sequence[SourceFile], folder: Path, revision: str | None) -> str:
    from huggingface_hub import HfApi, snapshot_download

    sha = revision or HfApi().dataset_info(repository).sha
    if sha is None:
        raise OSError("the hub names no revision")
    patterns = [file.path for file in wanted]
    snapshot_download(repository, repo_type="dataset", revision=sha, allow_patterns=patterns, local_dir=folder)
    return sha


def _from_github(repository: str, wanted: Sequence[SourceFile], folder: Path, revision: str | None) -> str:
    import httpx2

    with httpx2.Client(follow_redirects=True, timeout=60) as client:
        if revision is None:
            head = client.get(f"https://api.github.com/repos/{repository}/commits/HEAD")
            head.raise_for_status()
            revision = str(head.json()["sha"])
        for file in wanted:
            answer = client.get(f"https://raw.githubusercontent.com/{repository}/{revision}/{file.path}")
            if answer.status_code == 404 and not file.required:
                continue
            answer.raise_for_status()
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(answer.content)
    return revision


def hub_data(name: str) -> Path:
    """The folder with a hub's data set as prompts, a JSONL file for each split; fetched once.

    Raises `UserError` where it cannot be had, or has columns that are not understood.
    """
    folder = cache_dir() / "tasks" / name.replace("/", "--")
    prompts = folder / "prompts"
    if (folder / NOTE).is_file():
        return prompts
    try:
        revision, splits = _data_set(name)
    except Exception as error:  # the clients raise many unrelated types
        raise UserError(
            f"'{name}' is no file or folder here, and no data set that can be had from the hub ({_reason(error)}); "
            "download it and name its file"
        ) from error
    prompts.mkdir(parents=True, exist_ok=True)
    repeated = {}
    for split, rows in splits.items():
        found = from_records((f"{name}, {split}, row {number}", row) for number, row in enumerate(rows, 1))
        repeated[split] = found.duplicates
        lines = "".join(prompt.model_dump_json(exclude_defaults=True) + "\n" for prompt in found.prompts)
        (prompts / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    _note(folder, {"repository": f"hub:{name}", "revision": revision, "fetched": _today(), "duplicates": repeated})
    return prompts


def _data_set(name: str) -> tuple[str, Mapping[str, Iterable[Any]]]:
    """The hub's revision of a data set, and its splits."""
    import datasets
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()
    sha = HfApi().dataset_info(name).sha or ""
    return sha, datasets.load_dataset(name, revision=sha or None)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _note(folder: Path, note: Mapping[str, Any]) -> None:
    scratch = folder / f"{NOTE}.new"
    scratch.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    scratch.replace(folder / NOTE)


def _reason(error: Exception) -> str:
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())[:160]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
