#!/usr/bin/env bash
#SBATCH --nodes=4 --ntasks-per-node=1 --gres=gpu:8 --cpus-per-task=64 --mem=0 --exclusive --time=24:00:00
#
# One run on all nodes of a SLURM job, as one Ray cluster:   sbatch examples/slurm/cluster.sh
#
# The store is written on the first node's own disk, as SQLite wants it, and published into FOLDER, which all nodes see,
# every ten minutes and at the end: a job that is killed loses what came since. Checkpoints, and the states of trainings,
# are in FOLDER at once. Submitted again, the run goes on from there (a training that was killed, behind three minutes).
set -euo pipefail

RECIPE=${RECIPE:-mine.yaml}            # as for dadpo-bench run --recipe
METHODS=${METHODS:-sft kd dpo dadpo}   # contestants of the recipe
SEEDS=${SEEDS:-3}
FOLDER=${FOLDER:-$PWD/cluster}         # store, checkpoints
PORT=${PORT:-6379}
export RECIPE METHODS SEEDS FOLDER RAY_USAGE_STATS_ENABLED=0

# Ray starts this script again, with `run`, on the first node alone.
if [[ ${1:-} == run ]]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  if [[ -e $FOLDER/run.sqlite3 ]]; then dadpo-bench merge "$FOLDER/run.sqlite3" --into "$scratch/run.sqlite3"; fi
  publish() { dadpo-bench db publish "$FOLDER/run.sqlite3" --store "$scratch/run.sqlite3"; }
  (trap 'kill $!; exit' TERM; while :; do sleep 600 & wait $!; publish || true; done) &
  # From here on there is no less in the store than was published.
  trap 'kill $! || true; wait $! || true; publish; rm -rf "$scratch"' EXIT
  # shellcheck disable=SC2086  # METHODS are words
  dadpo-bench run $METHODS --recipe "$RECIPE" --seeds "$SEEDS" --store "$scratch/run.sqlite3" \
    --engine auto --set engine.artefacts="$FOLDER/run"
  exit
fi

mkdir -p "$FOLDER"
# Nobody else may use the cluster: its nodes, and the run, show each other a token that lies in the home directory.
ray get-auth-token --generate > /dev/null
export RAY_AUTH_MODE=token
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$head:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" -- bash "$0" run
