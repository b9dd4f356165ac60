"""engine.deterministic: a pair has the same bytes of score in every job, with real vLLM on the CPU.

Three starts of vLLM in this process, and two on Ray: some 90 s of CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.cli import cli
from tests.e2e.outputs import read_output
from tests.e2e.processes import has_parts, held_after, parts, rgpt_batch, started

pytestmark = pytest.mark.vllm

OPTIONS = {
    "model.dtype": "float32",
    "engine.method": "query-rows",
    "engine.deterministic": "true",
    "engine.kv_cache_bytes": 64 * 2**20,
    "engine.enforce_eager": "true",
}
QUERIES = ("tea", "when should a baby walk", "how long may a query be " * 6, "what is it")
# Of one token to some 600, which is more than the smallest step below has.
DOCUMENTS = ("a", *(f"Number {n} is told " + "again and once more " * n for n in range(0, 150, 10)))


def write_pairs(path: Path, order: np.ndarray) -> Path:
    ids = list(itertools.product(range(len(QUERIES)), range(len(DOCUMENTS))))
    chosen = [ids[number] for number in order]
    table = {
        "query_id": [f"q{query}" for query, _ in chosen],
        "doc_id": [f"d{document}" for _, document in chosen],
        "query": [QUERIES[query] for query, _ in chosen],
        "document": [DOCUMENTS[document] for _, document in chosen],
    }
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture
def in_order(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.parquet", np.arange(len(QUERIES) * len(DOCUMENTS)))


def arguments(model: Path, pairs: Path, output: Path, options: Mapping[str, object]) -> list[str]:
    command = ["score", "--model", str(model), "-i", str(pairs), "--output", str(output)]
    for name, value in (OPTIONS | dict(options)).items():
        command += ["-o", f"{name}={value}"]
    return command


def score(model: Path, pairs: Path, output: Path, **options: object) -> dict[str, str]:
    """Run a job in this process."""
    changes = {name.replace("__", "."): value for name, value in options.items()}
    command = [*arguments(model, pairs, output, changes), "--executor", "local"]
    assert cli.main(command, prog_name="rgpt-batch", standalone_mode=False) == 0
    return bits(output)


def bits(output: Path) -> dict[str, str]:
    """Query and document → all digits of their score."""
    rows = read_output(output).to_pylist()
    assert len(rows) == len(QUERIES) * len(DOCUMENTS)
    return {f"{row['query_id']} {row['doc_id']}": row["score"].hex() for row in rows}


def test_order_units_batches_and_prefix_cache_change_no_bit_of_a_score(
    tiny_llama: Path, in_order: Path, tmp_path: Path
) -> None:
    expected = score(tiny_llama, in_order, tmp_path / "one", units__max_rows=100)
    assert len(set(expected.values())) == len(expected)
    shuffled = np.random.default_rng(0).permutation(len(expected))
    found = score(
        tiny_llama,
        write_pairs(tmp_path / "shuffled.parquet", shuffled),
        tmp_path / "other",
        units__max_rows=7,
        engine__prefix_caching="true",
        engine__max_num_seqs=8,
        engine__max_num_batched_tokens=96,
    )
    assert found == expected


@pytest.mark.ray
def test_workers_and_a_job_that_is_killed_and_resumed_change_no_bit_of_a_score(
    tiny_llama: Path, in_order: Path, tmp_path: Path
) -> None:
    expected = score(tiny_llama, in_order, tmp_path / "one", units__max_rows=100)
    output = tmp_path / "killed"
    options = {"units.max_rows": 3, "executor.num_workers": 2, "executor.cpus_per_worker": 1}
    given = arguments(tiny_llama, in_order, output, options)
    command = rgpt_batch(*given, "--executor", "ray")
    log = tmp_path / "log"
    with started(command, log, without_torch=False, fresh=True, held_at=held_after(2)) as job:
        job.wait_until(lambda: has_parts(output, 2), seconds=300)
        job.kill_group()
        # Later, while they are still there, workers whose job is dead may commit more.
        assert len(parts(output)) == 2
    # One worker, with all threads, does what remains.
    assert score(tiny_llama, in_order, output, units__max_rows=3) == expected
