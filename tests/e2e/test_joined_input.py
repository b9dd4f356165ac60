"""`score --queries --documents` as a process: its options, and kills in the middle."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.jobs import Command, Finish, Job, Start
from tests.e2e.outputs import read_output, row_differences
from tests.e2e.processes import has_parts, held_after, parts, rgpt_batch

NUM_ROWS = 96


@pytest.fixture
def command(job: Job, tmp_path: Path) -> Command:
    """Score candidates whose texts stand in tables, in units of four rows."""
    rows = range(NUM_ROWS)
    candidates = pa.table({"qid": [f"q{i % 7}" for i in rows], "docno": [f"d{i}" for i in rows]})
    pq.write_table(candidates, tmp_path / "candidates.parquet")
    queries = pa.table({"qid": [f"q{i}" for i in range(7)], "text": [f"no {i}" for i in range(7)]})
    pq.write_table(queries, tmp_path / "queries.parquet")
    corpus = pa.table({"docno": [f"d{i}" for i in rows], "text": [f"Number {i}" for i in rows]})
    pq.write_table(corpus, tmp_path / "corpus.parquet")
    (tmp_path / "config.yaml").write_text(
        job.config.read_text().replace("- rank", "").replace("pass_through:", "pass_through: []")
    )
    return rgpt_batch(
        "score", "-c", tmp_path / "config.yaml", "-i", tmp_path / "candidates.parquet",
        "--queries", tmp_path / "queries.parquet", "--documents", tmp_path / "corpus.parquet",
        "--output", tmp_path / "scored",
    )  # fmt: skip


def test_a_killed_job_resumes_with_the_pairs_that_it_has_joined(
    job: Job, command: Command, start: Start, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    code, said = finish([*command[:-1], tmp_path / "clean"])
    assert code == 0
    assert "joining candidates with their texts" in said
    process = start(command, held_at=held_after(5))
    process.wait_until(partial(has_parts, output, 5))
    process.kill_group()
    assert len(parts(output)) == 5
    code, said = finish(command)
    assert code == 0
    assert "joining" not in said
    # The paths of the joined pairs, which are a column here, differ between the two folders.
    found, clean = (
        read_output(folder).drop(["source_file"]) for folder in (output, tmp_path / "clean")
    )
    assert row_differences(clean, found) == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_join_leaves_nothing_half_done(
    command: Command, start: Start, tmp_path: Path, signum: signal.Signals
) -> None:
    process = start(command)
    process.wait_until(lambda: "joining candidates" in process.output)
    process.send(signum)
    code = process.wait()
    # It may have been done already.
    assert code in (0, 128 + signum), process.output
    assert list((tmp_path / "scored" / "_rgpt" / "staging").glob("joining-*")) == []
    process = start(command)
    assert process.wait() == 0, process.output
    assert read_output(tmp_path / "scored").num_rows == NUM_ROWS


def test_unknown_ids_exit_2_or_are_rejected(
    command: Command, finish: Finish, tmp_path: Path
) -> None:
    pq.write_table(pq.read_table(tmp_path / "corpus.parquet")[1:], tmp_path / "corpus.parquet")
    code, said = finish(command)
    assert code == 2
    assert "1 pairs have a doc_id that is not there, such as 'd0'" in said
    assert "--missing reject" in said
    code, said = finish([*command, "--missing", "reject"])
    assert code == 0
    assert "rejected     1 (NULL_DOCUMENT 1)" in said
