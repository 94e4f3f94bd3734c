#!/usr/bin/env bash
# Train a config on several GPUs, on one or more nodes; without CUDA on as many CPU ranks (gloo).
set -euo pipefail
usage() {
    cat >&2 <<'TEXT'
usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
  GPUS: number on this node. From the environment: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1),
  PORT (29500), MAX_RESTARTS (0): how often all ranks restart from the last checkpoint when one fails.
  Nodes share the work dir; start the same line on each node, with its NODE_RANK.
example:
  tools/dist_train.sh configs/simsiam/NAME.py 4 --resume
  NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 tools/dist_train.sh configs/simsiam/NAME.py 8
TEXT
}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage 2>&1; exit 0; fi
if [[ $# -lt 2 || ! $2 =~ ^[1-9][0-9]*$ ]]; then usage; exit 2; fi
config=$1 gpus=$2
shift 2
if [[ ! -f $config ]]; then echo "error: $config: no such config, expected a file in configs/" >&2; exit 2; fi

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$tools/../.venv/bin/python
[[ -x $python ]] || python=python
if [[ ${NNODES:-1} == 1 && -z ${PORT:-} ]]; then
    rendezvous=(--standalone)  # takes a free port
else
    # c10d, since torchrun's default (static) cannot reconnect the nodes after a restart.
    master=${MASTER_ADDR:-127.0.0.1} is_host=0
    [[ ${NODE_RANK:-0} == 0 ]] && is_host=1
    rendezvous=(--nnodes "${NNODES:-1}" --rdzv-backend c10d --rdzv-endpoint "$master:${PORT:-29500}"
                --rdzv-conf "is_host=$is_host")
    [[ $master == 127.0.0.1 || $master == localhost ]] && rendezvous+=(--local-addr "$master")
fi
exec "$python" "$tools/launch.py" "${rendezvous[@]}" --nproc-per-node "$gpus" \
    --max-restarts "${MAX_RESTARTS:-0}" "$tools/train.py" "$config" --launcher pytorch "$@"
