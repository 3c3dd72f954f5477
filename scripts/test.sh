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
pytest=("$PYTHON" -m pytest -q ${warnings[@]+"${warnings[@]}"})
if [ $# -gt 0 ]; then
    exec "${pytest[@]}" "$@"
fi

# All tests: two halves at the same time, since most of them keep one core busy. The output of the first comes last.
log=$(mktemp)
"${pytest[@]}" tests/active tests/benchmarks tests/scripts > "$log" 2>&1 &
half=$!
trap 'kill "$half" 2> /dev/null || true; rm -f "$log"' EXIT
status=0
"${pytest[@]}" tests --ignore tests/active --ignore tests/benchmarks --ignore tests/scripts || status=$?
wait "$half" || status=$?
cat "$log"
exit "$status"
