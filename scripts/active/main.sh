#!/usr/bin/env bash
# One cell: a data set, a learner on a backbone, a sampler, a seed. Call it again and it goes on, or says that it is finished.
#
#   bash scripts/active/main.sh DATASET CONFIG SAMPLER SEED [KEY VALUE ...]
#   DATA=~/data bash scripts/active/main.sh dtd CoOp/vit_b16 badge 1
#   for seed in 1 2 3; do bash scripts/active/main.sh dtd CoOp/vit_b16 badge $seed; done
#
# DATASET, CONFIG and SAMPLER are the names of files below configs/datasets, configs/trainers and configs/active. The data root is
# $DATA (default: data); runs go to $OUTPUT (default: output) / DATASET / CONFIG / SAMPLER / seedSEED, as a sweep's do.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
absolute() {  # macOS has no `realpath -m`
    case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "${PWD%/}/$1" ;; esac
}
DATA=$(absolute "${DATA:-data}") OUTPUT=$(absolute "${OUTPUT:-output}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

dataset=$1 config=$2 sampler=$3 seed=$4
shift 4
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
exec "$PYTHON" train.py \
    --config-file "configs/datasets/$dataset.yaml" "configs/trainers/$config.yaml" "configs/active/$sampler.yaml" \
    --root "$DATA" --seed "$seed" --output-dir "$OUTPUT/$dataset/$config/$sampler/seed$seed" "$@"
