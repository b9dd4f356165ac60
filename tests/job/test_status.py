"""What `status` says of the engine: the method that scored, not the one that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch.commands.inspection import status
from tests.jobs import Score


@pytest.fixture
def output(score_with_fake: Score, tmp_path: Path) -> Path:
    table = pa.table(
        {"query_id": ["q"], "doc_id": ["d"], "query": ["what is it"], "document": ["a river"]}
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    return score_with_fake(tmp_path / "pairs.parquet").folder


def ask(output: Path, *options: str) -> str:
    result = CliRunner().invoke(status, [str(output), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_status_names_the_method_that_scored(output: Path) -> None:
    assert "engine       fake: the scores are invented\n" in ask(output)
    assert json.loads(ask(output, "--json"))["engines"] == ["fake"]


def test_the_files_tell_where_the_last_run_scored_nothing(output: Path) -> None:
    record = output / "_rgpt" / "status.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "engines": []}))
    assert "engine       fake" in ask(output)
    record.unlink()
    assert json.loads(ask(output, "--json"))["engines"] == ["fake"]


def test_nothing_is_said_before_anything_is_scored(output: Path) -> None:
    (output / "part-000000.parquet").unlink()
    (output / "_rgpt" / "status.json").unlink()
    assert "engine" not in ask(output)
