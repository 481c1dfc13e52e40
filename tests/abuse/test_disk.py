"""A full or read-only disk: one line, nothing half-made, and the same command finishes once there is room."""

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase
from typer.testing import CliRunner

from dadpo_bench.cli import app

Disk = Callable[[str], Path]


@pytest.fixture
def recipe(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Judged by length, which is quick."""
    monkeypatch.setenv("DADPO_BENCH_DTYPE", "float32")
    tiny_recipe.write_text(json.dumps({**json.loads(tiny_recipe.read_text()), "judge": "longer"}))
    return tiny_recipe


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """`disk("size=300k")`: a file system of its own with these mount options, the same one when called again."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        again = f"remount,{options}" if folder.is_mount() else options
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", again, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip("needs the right to mount a tmpfs")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run(recipe: Path, store: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["run", "dadpo", "--recipe", str(recipe), "--store", str(store), "--quiet"])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.stderr


def one_line(errors: str) -> bool:
    return errors.startswith("error: ") and errors.count("\n") == 1


def test_a_disk_full_at_any_point_is_one_line_and_the_run_goes_on_from_there(recipe: Path, disk: Disk) -> None:
    # Full at the schema, the first rows, before a checkpoint, in its weights, in its tokenizer, and further on.
    for kilobytes in (64, 300, 400, 480, 500, 700, 900):
        store = disk(f"size={kilobytes}k") / "s.sqlite3"
        code, errors = run(recipe, store)
        assert code == 1, kilobytes
        assert one_line(errors), errors
        assert not list(store.parent.glob("s/.*"))
    disk("size=64m")
    assert run(recipe, store) == (0, "")


def test_a_file_that_may_not_grow_is_one_line_and_the_run_goes_on_later(recipe: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        code, errors = run(recipe, tmp_path / "s.sqlite3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert one_line(errors), errors
    assert run(recipe, tmp_path / "s.sqlite3") == (0, "")


def test_a_disk_full_at_the_tokenizer_is_one_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise Exception("No space left on device (os error 28)")  # as tokenizers, written in Rust, tell it

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
    code, errors = run(recipe, tmp_path / "s.sqlite3")
    assert code == 1
    assert one_line(errors)
    assert "No space left on device" in errors
    assert not list((tmp_path / "s").iterdir())


def test_a_read_only_disk_is_refused_with_a_remedy(recipe: Path, disk: Disk) -> None:
    store = disk("size=64m") / "s.sqlite3"
    disk("ro")
    code, errors = run(recipe, store)
    assert code == 2
    assert one_line(errors)
    assert "its folder must exist and be writable" in errors


def test_a_store_on_a_disk_that_became_read_only_is_refused(recipe: Path, disk: Disk) -> None:
    store = disk("size=64m") / "s.sqlite3"
    arguments = ["run", "dadpo", "--recipe", str(recipe), "--store", str(store), "--until", "models"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    disk("ro")
    code, errors = run(recipe, store)
    assert code == 2
    assert one_line(errors)
