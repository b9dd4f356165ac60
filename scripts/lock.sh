#!/usr/bin/env bash
# Rewrite requirements/cpu.lock from pyproject.toml (needs uv). Extra arguments go to uv, e.g. --upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."
${UV:-uv} pip compile pyproject.toml --extra cpu --extra eval --extra ir-datasets --extra convert --extra lake --group dev --override requirements/cpu-overrides.txt \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX" --index-strategy unsafe-best-match} \
    --no-emit-index-url --no-emit-find-links --no-annotate --quiet -o requirements/cpu.lock "$@"
