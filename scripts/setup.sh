# Sourced by the other scripts: makes the virtual environment VENV (default .venv) with PYTHON (default python3), installs
# the given requirement files into it unless they are installed already, and leaves PYTHON pointing into it.
#
#   source scripts/setup.sh requirements.txt [more.txt ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
stamp=$VENV/installed-requirements

"$PYTHON" - <<'END' || exit 1
import sys
if not (3, 10) <= sys.version_info[:2]:
    sys.exit(f"Python 3.10 or newer is needed, but {sys.executable} is {sys.version.split()[0]}; set PYTHON to another one")
END
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
wanted=$(cat "$@")
if [ "$wanted" != "$(cat "$stamp" 2>/dev/null)" ]; then
    echo "installing into $VENV: $* (torch is large: this takes a few minutes)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check $(printf -- '-r %s ' "$@")
    printf '%s\n' "$wanted" > "$stamp"
fi
PYTHON=$VENV/bin/python
