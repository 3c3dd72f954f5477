#!/usr/bin/env bash
# Install into .venv and build the documentation site into output/site; a dead link, or anything else that is odd, is an error.
#
#   bash scripts/docs.sh [MKDOCS ARGUMENT ...]
#   python -m http.server -d output/site            to read it with a search
#
# PICTURES=false leaves out the pictures of what samplers pick, half a minute of one core.
source "$(dirname "$0")/setup.sh" requirements.txt requirements-docs.txt
exec env OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 "$PYTHON" -m mkdocs build --strict "$@"
