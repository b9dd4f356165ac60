"""The job that most tests run: two shards, 24 units, a few rows that must be rejected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.e2e.jobs import Command, Finish, Job, ReadStatus, Start, write_job
from tests.e2e.outputs import read_output
from tests.e2e.processes import Process, started


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Job:
    """The job; tests must leave its input alone."""
    return write_job(tmp_path_factory.mktemp("job"), tiny_tokenizer)


@pytest.fixture(scope="session")
def clean_output(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed; checked by itself, for other tests to read."""
    folder = tmp_path_factory.mktemp("clean")
    with started(job.score(folder / "scored"), folder / "log", fresh=True) as process:
        assert process.wait() == 0, process.output
    table = read_output(folder / "scored")
    rows = list(zip(table["source_file"].to_pylist(), table["source_row"].to_pylist(), strict=True))
    assert rows == [
        (str(job.pairs / f"pairs-{shard}.parquet"), row) for shard in (0, 1) for row in range(48)
    ]
    assert table["doc_id"].to_pylist() == [f"d{row}" for row in range(96)]
    assert table["score"].null_count == table["rejection"].to_pylist().count("NULL_QUERY") == 3
    assert table["num_dropped_document_tokens"].drop_null().to_pylist() != [0] * 93
    return folder / "scored"


@pytest.fixture(scope="session")
def clean_rows(clean_output: Path) -> pa.Table:
    """All rows of the clean output."""
    return read_output(clean_output)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands; see Process. At the end of the test nothing of them is left."""
    with ExitStack() as stack:

        def start_one(command: Command, **options: Any) -> Process:
            log = tmp_path / f"log-{len(list(tmp_path.glob('log-*')))}"
            return stack.enter_context(started(command, log, **options))

        yield start_one


@pytest.fixture
def finish(start: Start) -> Finish:
    """Run a command to its end; returns the exit code and all that it said."""

    def finish_one(command: Command, **options: Any) -> tuple[int, str]:
        process = start(command, **options)
        code = process.wait()
        assert "Traceback" not in process.output
        return code, process.output

    return finish_one


@pytest.fixture
def read_status() -> ReadStatus:
    """Read status.json of an output folder."""

    def read(output: Path) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((output / "_rgpt" / "status.json").read_bytes())
        return status

    return read


@pytest.fixture(scope="session")
def ray_address() -> str:
    """The address of the session's Ray cluster, for commands to join."""
    from tests.executors.cluster import shared_cluster

    return shared_cluster()
