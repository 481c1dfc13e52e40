#!/usr/bin/env bash
# A SLURM array with a store for each training seed, made one board at the end:   bash examples/slurm/array.sh
#
# Three jobs, each behind the one before: what all seeds share (the student, the teacher's responses), the seeds side by
# side, the merge. Judging comes behind the merge, in one process, so that no comparison is asked or paid for twice.
#
# Stores are written on a node's own disk, as SQLite wants it, and published into FOLDER, which all nodes see, at a job's
# end: one that is killed, or lost with its node, loses what it did. Submitted again, every job goes on from there.
set -euo pipefail

RECIPE=${RECIPE:-mine.yaml}            # as for dadpo-bench run --recipe
METHODS=${METHODS:-sft kd dpo dadpo}   # contestants of the recipe
SEEDS=${SEEDS:-3}                      # members of the array: seeds 0, 1, …
FOLDER=${FOLDER:-$PWD/array}           # stores, checkpoints and logs
export RECIPE METHODS SEEDS FOLDER

scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/dadpo-bench-${SLURM_JOB_ID:-$$}

# begin NAME OTHER…: a store of this name on this node's disk, with what the others in FOLDER hold, and it itself there.
begin() {
  name=$1
  mkdir -p "$scratch/$name" "$FOLDER/$name"
  trap keep EXIT
  for earlier in "${@:2}" "$name"; do
    if [[ -e $FOLDER/$earlier.sqlite3 ]]; then
      dadpo-bench merge "$FOLDER/$earlier.sqlite3" --into "$scratch/$name.sqlite3"
      cp -r "$FOLDER/$earlier/." "$scratch/$name/"   # checkpoints: a missing one would be trained again
    fi
  done
}

keep() {
  if [[ -e $scratch/$name.sqlite3 ]]; then
    dadpo-bench db publish "$FOLDER/$name.sqlite3" --store "$scratch/$name.sqlite3"
    cp -r "$scratch/$name/." "$FOLDER/$name/"
  fi
  rm -rf "$scratch"
}

run() {
  # shellcheck disable=SC2086  # METHODS are words
  dadpo-bench run $METHODS --recipe "$RECIPE" --store "$scratch/$name.sqlite3" "$@"
}

submit() {
  sbatch --parsable --output="$FOLDER/%x-%j.log" --gres=gpu:1 --cpus-per-task=8 --mem=64G --time=12:00:00 "$@"
}

case ${1:-} in
  "")
    mkdir -p "$FOLDER"
    shared=$(submit --job-name=shared "$0" shared)
    seeds=$(submit --job-name=seeds --dependency="afterok:$shared" --array="0-$((SEEDS - 1))" "$0" seed)
    merged=$(submit --job-name=merged --dependency="afterok:$seeds" "$0" merged)
    echo "submitted $shared, $seeds, $merged; the board will be $FOLDER/merged.md"
    ;;
  shared)
    begin shared
    run --until teacher-responses
    ;;
  seed)
    begin "seed-$SLURM_ARRAY_TASK_ID" shared
    run --set seed="$SLURM_ARRAY_TASK_ID" --until responses
    ;;
  merged)
    members=()
    for ((seed = 0; seed < SEEDS; seed++)); do members+=("seed-$seed"); done
    begin merged "${members[@]}"
    run --seeds "$SEEDS"   # all is there but the judging
    ;;
  *)
    echo "usage: bash $0" >&2
    exit 2
    ;;
esac
