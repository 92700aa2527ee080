#!/usr/bin/env bash
# Installs the wheel of a folder into a virtual environment and runs these tests against it: run.sh WHEELS VENV
#
# The environment is kept until the requirements change. Neither cargo nor the source tree is in reach of the tests.
set -euo pipefail
wheel=("$1"/polylance-*.whl) venv="$2"
here="$(cd "$(dirname "$0")" && pwd)"
install=("$venv/bin/pip" install --quiet --disable-pip-version-check)
wanted="$(cat "$here"/requirements.txt "$here"/requirements-no-deps.txt)"

if [ "$(cat "$venv/installed.txt" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$venv"
    "${install[@]}" --requirement "$here/requirements.txt"
    "${install[@]}" --no-deps --requirement "$here/requirements-no-deps.txt"
    echo "$wanted" >"$venv/installed.txt"
fi
"${install[@]}" --no-deps --force-reinstall "${wheel[@]}"
env -i HOME="$HOME" LANG=C.UTF-8 PATH="$venv/bin:/usr/bin:/bin" "$venv/bin/pytest" --quiet "$here"
