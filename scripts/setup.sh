#!/bin/sh
# Sets up .venv and runs one of: quickstart, test, verify, install. `make TARGET` calls this; it works without make too:
#   sh scripts/setup.sh quickstart
set -eu
cd "$(dirname "$0")/.."

target="${1:-install}"
command -v make >/dev/null 2>&1 || echo "note: make is not installed (Debian: apt-get install make); this script does the same"

find_python() {
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 14)))' 2>/dev/null; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

if ! python="$(find_python)"; then
    found="$(python3 --version 2>/dev/null || echo 'no python3')"
    echo "Python 3.11, 3.12 or 3.13 is needed, found: $found" >&2
    echo "fix (Debian): apt-get install python3.11 python3.11-venv    or name another one: PYTHON=/path/to/python3.11 make $target" >&2
    exit 2
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    echo "$python has no venv module" >&2
    echo "fix (Debian): apt-get install python$version-venv" >&2
    exit 2
fi
exec "$python" scripts/setup.py "$target"
