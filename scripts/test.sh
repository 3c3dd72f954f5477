#!/usr/bin/env bash
# Install into .venv and run the linter and all tests; what follows goes to pytest.
#
#   bash scripts/test.sh [--oldest] [PYTEST ARGUMENT ...]
#
# With --oldest the oldest versions that requirements.txt allows are installed, into .venv-oldest, and tested; what they say of
# newer versions of each other (DeprecationWarning) is not ours to mend.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=requirements.txt
warnings=()
if [ "${1:-}" = --oldest ]; then
    shift
    VENV=.venv-oldest
    mkdir -p "$VENV"
    requirements=$VENV/oldest.txt
    sed 's/>=/==/' requirements.txt > "$requirements"
    warnings=(-W ignore::DeprecationWarning)
fi
source scripts/setup.sh "$requirements" requirements-dev.txt requirements-cluster.txt
"$PYTHON" -m ruff check .
# Three processes for two cores, since tests also wait for what they start; with arguments, such as a file, one.
[ $# -gt 0 ] || set -- -n 3 --dist worksteal
exec "$PYTHON" -m pytest -q ${warnings[@]+"${warnings[@]}"} "$@"
