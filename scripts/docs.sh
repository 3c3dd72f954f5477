#!/usr/bin/env bash
# Install into .venv and build the documentation site into output/site; a dead link, or anything else that is odd, is an error.
#
#   bash scripts/docs.sh [MKDOCS ARGUMENT ...]     PICTURES=false leaves out what samplers pick, half a minute of one core
source "$(dirname "$0")/setup.sh" requirements.txt requirements-docs.txt
exec env OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 "$PYTHON" -m mkdocs build --strict "$@"
