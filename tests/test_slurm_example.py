"""`examples/slurm/array.sh` does what it says: its jobs, run here one after another by a scripted `sbatch`."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dadpo_bench.store import open_store, schema
from tests.conftest import environment

SCRIPT = Path(__file__).parents[1] / "examples" / "slurm" / "array.sh"

SBATCH = r"""#!/usr/bin/env bash
echo "$*" >> "$FOLDER/submitted"
members=1
while [[ $1 == --* ]]; do [[ $1 == --array=0-* ]] && members=$((${1#--array=0-} + 1)); shift; done
for ((member = 0; member < members; member++)); do
  SLURM_ARRAY_TASK_ID=$member SLURM_JOB_ID=7$member bash "$@" >> "$FOLDER/log" 2>&1 || exit 1
done
wc -l < "$FOLDER/submitted"
"""


@pytest.mark.slow
def test_an_array_job_ends_with_one_board_of_all_seeds(tiny_recipe: Path, tmp_path: Path) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "array"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "dadpo-bench").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dadpo_bench "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    wanted = {"RECIPE": str(tiny_recipe), "METHODS": "dadpo", "SEEDS": "2", "FOLDER": str(folder)}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    settings = {**environment(), **wanted, "PATH": path, "TMPDIR": str(tmp_path)}
    done = subprocess.run(["bash", SCRIPT], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    log = (folder / "log").read_text()
    assert done.returncode == 0, (done.stderr, log)
    assert "--dependency=afterok:1" in (folder / "submitted").read_text()
    last = log[log.rindex("\nmodels\n") :]
    assert [line.split(":")[0] for line in last.splitlines() if " in " in line] == ["  judge pmi"]  # all else was there
    with closing(open_store(str(folder / "merged.sqlite3"), create=False)) as store, store.read() as session:
        seeds = {score.contestant: score.values["seeds"] for score in session.scalars(select(schema.Score))}
        trained = select(func.count()).select_from(schema.Derivation).where(schema.Derivation.kind == "train")
        assert (seeds["sft"], seeds["dadpo"], session.scalars(trained).one()) == (2, 2, 4)
    assert (folder / "merged.md").read_text().startswith("# Leaderboard")
    assert not list(tmp_path.glob("dadpo-bench-*"))
