"""Columns of scored files: one meaning and one type over all files, or a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ShardError
from rgpt_batch.ranking.rank import rank

IDS = {"query_id": ["q", "q"], "doc_id": ["a", "b"]}


def write(path: Path, columns: Mapping[str, Any]) -> Path:
    pq.write_table(pa.table(dict(columns)), path)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {**IDS, "score": [-1.0, -2.0], "Score": [1.0, 2.0]},
        {"query_id": ["q", "q"], "DOC_ID": [10, 11], "doc_id": ["a", "b"], "score": [2.0, 1.0]},
    ],
)
def test_names_that_differ_in_case_alone_are_refused(
    tmp_path: Path, columns: Mapping[str, Any]
) -> None:
    file = write(tmp_path / "scored.parquet", columns)
    with pytest.raises(ShardError, match="but for upper and lower case"):
        rank(file, tmp_path / "ranking.parquet", top_k=2)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({**IDS, "score": [1, 2]}, {**IDS, "score": [1.4, 1.6]}, "column 'score' is double"),
        (
            {"query_id": ["q", "q"], "doc_id": [7, 8], "score": [1.0, 2.0]},
            {"query_id": ["q", "q"], "doc_id": ["009", "010"], "score": [1.0, 2.0]},
            "column 'doc_id' is string",
        ),
        ({**IDS, "score": [1.0, 2.0]}, IDS, "no column 'score'"),
    ],
)
def test_files_whose_columns_have_other_types_are_refused(
    tmp_path: Path, first: Mapping[str, Any], second: Mapping[str, Any], named: str
) -> None:
    files = [write(tmp_path / "0.parquet", first), write(tmp_path / "1.parquet", second)]
    with pytest.raises(ShardError, match=rf"1\.parquet: {named}"):
        rank(files, tmp_path / "ranking.parquet", top_k=2)
