#!/usr/bin/env bash
# Test a checkpoint on several GPUs; without CUDA on as many CPU ranks (gloo).
set -euo pipefail
usage() {
    cat >&2 <<'TEXT'
usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
  NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500) from the environment
example:
  tools/dist_test.sh configs/faster_rcnn/NAME.py work_dirs/NAME/epoch_24.pth 4
TEXT
}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then usage 2>&1; exit 0; fi
if [[ $# -lt 3 || ! $3 =~ ^[1-9][0-9]*$ ]]; then usage; exit 2; fi
config=$1 checkpoint=$2 gpus=$3
shift 3
for file in "$config" "$checkpoint"; do
    if [[ $file != *://* && ! -f $file ]]; then echo "error: $file: no such file" >&2; exit 2; fi
done

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$tools/../.venv/bin/python
[[ -x $python ]] || python=python
if [[ ${NNODES:-1} == 1 && -z ${PORT:-} ]]; then
    rendezvous=(--standalone)  # takes a free port
else
    rendezvous=(--nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
                --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}")
fi
exec "$python" "$tools/launch.py" "${rendezvous[@]}" --nproc-per-node "$gpus" \
    "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
