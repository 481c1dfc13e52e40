"""`examples/slurm` does what it says, under a scripted SLURM: an array one job after another, a cluster of one node."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dadpo_bench.store import open_store, schema
from tests.conftest import environment

SCRIPTS = Path(__file__).parents[1] / "examples" / "slurm"

SBATCH = r"""#!/usr/bin/env bash
echo "$*" >> "$FOLDER/submitted"
members=1
while [[ $1 == --* ]]; do [[ $1 == --array=0-* ]] && members=$((${1#--array=0-} + 1)); shift; done
for ((member = 0; member < members; member++)); do
  SLURM_ARRAY_TASK_ID=$member SLURM_JOB_ID=7$member bash "$@" >> "$FOLDER/log" 2>&1 || exit 1
done
wc -l < "$FOLDER/submitted"
"""


PROGRAM = f'#!/bin/sh\nexec "{sys.executable}" -m dadpo_bench "$@"\n'

HERE = f"""#!/usr/bin/env bash
[[ $1 == run ]] && set -- "${{@/auto/local}}"
exec "{sys.executable}" -m dadpo_bench "$@"
"""
"""The program without a cluster."""

RAY = """#!/usr/bin/env bash
[[ $1 == get-auth-token ]] && exit
echo "$*"
while [[ $1 != -- ]]; do shift; done
shift
exec "$@"
"""


def scripted(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which these are found first."""
    place = folder / "bin"
    place.mkdir()
    for name, text in programs.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return {**environment(), "PATH": f"{place}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder)}


def submitted(script: str, folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / script)]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_on_all_nodes_is_published_goes_on_and_spoils_nothing(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    srun = '#!/bin/sh\necho "$1"\nshift\nexec "$@"\n'
    scontrol = "#!/bin/sh\necho node-1\necho node-2\n"
    settings = scripted(tmp_path, srun=srun, scontrol=scontrol, ray=RAY, **{"dadpo-bench": HERE})
    settings |= {"RECIPE": str(tiny_recipe), "METHODS": "sft", "SEEDS": "1", "FOLDER": str(folder)}
    settings |= {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "3"}
    first, again = (submitted("cluster.sh", tmp_path, settings) for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0), (first.stderr, again.stderr)
    assert first.stdout.startswith("--cpus-per-task=3\nsymmetric-run --address node-1:6379 --min-nodes 2 -- bash ")
    assert "train sft, seed 0: " in first.stdout
    assert "train sft" not in again.stdout  # all is there
    (folder / "run.sqlite3").write_text("a store that cannot be read")
    spoilt = submitted("cluster.sh", tmp_path, settings)
    assert spoilt.returncode != 0
    assert (folder / "run.sqlite3").read_text() == "a store that cannot be read"
    assert not list(tmp_path.glob("tmp.*"))


@pytest.mark.slow
def test_an_array_job_ends_with_one_board_of_all_seeds(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "array"
    settings = scripted(tmp_path, sbatch=SBATCH, **{"dadpo-bench": PROGRAM})
    settings |= {"RECIPE": str(tiny_recipe), "METHODS": "dadpo", "SEEDS": "2", "FOLDER": str(folder)}
    done = submitted("array.sh", tmp_path, settings)
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
