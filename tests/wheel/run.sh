#!/usr/bin/env bash
# Installs the wheel of a folder into a virtual environment and runs these tests against it: run.sh WHEELS VENV
#
# The environment is kept until the requirements change. Neither cargo nor the source tree is in reach of the tests.
set -euo pipefail
wheel=("$1"/polylance-*.whl) venv="$2"
here="$(cd "$(dirname "$0")" && pwd)"

if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "${wheel[@]}"
env -i HOME="$HOME" PATH="$venv/bin:/usr/bin:/bin" "$venv/bin/python" -P -m pytest --quiet "$here"
