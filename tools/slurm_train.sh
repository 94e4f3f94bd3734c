#!/usr/bin/env bash
# Train a config as a Slurm job.
set -euo pipefail
usage() {
    cat >&2 <<'TEXT'
usage: tools/slurm_train.sh PARTITION JOB CONFIG [options of tools/train.py]
  GPUS (4), GPUS_PER_NODE (4), CPUS_PER_TASK (10), SRUN_ARGS from the environment
example:
  GPUS=8 GPUS_PER_NODE=8 tools/slurm_train.sh gpu simsiam configs/simsiam/NAME.py --resume
TEXT
}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage 2>&1; exit 0; fi
if [[ $# -lt 3 ]]; then usage; exit 2; fi
partition=$1 job=$2 config=$3
shift 3
if [[ ! -f $config ]]; then echo "error: $config: no such config, expected a file in configs/" >&2; exit 2; fi
if ! command -v srun > /dev/null; then
    echo "error: srun: not found, expected Slurm; without it use tools/dist_train.sh" >&2; exit 2
fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$tools/../.venv/bin/python
[[ -x $python ]] || python=python
gpus=${GPUS:-4} per_node=${GPUS_PER_NODE:-4}
((per_node > gpus)) && per_node=$gpus
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-10}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "$python" -u "$tools/train.py" "$config" --launcher slurm "$@"
