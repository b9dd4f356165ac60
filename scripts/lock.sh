#!/usr/bin/env bash
# Rewrite requirements/*.lock from pyproject.toml (needs uv). Extra arguments go to uv, e.g. --upgrade.
#   cpu.lock           what `make setup` installs: the CPU build of vLLM, tests and tools
#   cpu-runtime.lock   the same without tests and tools
#   gpu-py3XX.lock     for clusters with CUDA
set -euo pipefail
cd "$(dirname "$0")/.."
vllm=0.33.0  # on GPUs

lock() { # OUTPUT PYTHON OPTION…
    local output=$1 python=$2
    shift 2
    UV_CUSTOM_COMPILE_COMMAND=scripts/lock.sh ${UV:-uv} pip compile pyproject.toml --extra eval --extra ir-datasets --extra convert --extra lake "$@" \
        --python-version "$python" --python-platform x86_64-manylinux_2_28 \
        ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX" --index-strategy unsafe-best-match} \
        --no-emit-index-url --no-emit-find-links --no-annotate --quiet -o "$output"
}

lock requirements/cpu.lock 3.11 --extra cpu --group dev --override requirements/cpu-overrides.txt "$@"
lock requirements/cpu-runtime.lock 3.11 --extra cpu --override requirements/cpu-overrides.txt -c requirements/cpu.lock "$@"
for python in 3.11 3.12 3.13; do
    lock "requirements/gpu-py${python/./}.lock" "$python" --extra gpu -c <(echo "vllm==$vllm") "$@"
done
