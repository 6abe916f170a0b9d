#!/usr/bin/env bash
# Train on several processes: one a GPU, or gloo processes on the CPU where there is none.
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On several machines run it on each with NNODES, NODE_RANK (0 to NNODES - 1), MASTER_ADDR (machine 0) and PORT set.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n '2,4s/^# *//p' "$0" >&2; exit 2; fi
CONFIG=$1; GPUS=$2; shift 2
HERE=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "${PYTHON:-python}" "$HERE/dist_launch.py" --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$GPUS" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" "$HERE/train.py" "$CONFIG" --launcher pytorch "$@"
