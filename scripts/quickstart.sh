#!/usr/bin/env bash
# Install into .venv and run active learning on real handwritten digits, on a CPU, without any download of data or weights.
#
#   bash scripts/quickstart.sh [KEY VALUE ...]
source "$(dirname "$0")/setup.sh" requirements.txt
exec "$PYTHON" train.py --config-file configs/quickstart.yaml "$@"
