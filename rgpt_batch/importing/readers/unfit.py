"""Scores and ranks of Parquet files that are no numbers to work with, named by file and row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rgpt_batch.errors import ShardError
from rgpt_batch.input.rows import read_rows


def refuse_unfit(
    files: Sequence[str], column: str, *, largest: float, why: str, origin: str | None = None
) -> None:
    """Look for the first value that is NaN, infinite or too large.

    Args:
        files: Parquet files; one may lack the column.
        column: Of numbers or nulls.
        largest: What a value's magnitude may be.
        why: What sets that limit.
        origin: What to call a file that was written here.

    Raises:
        ShardError: There is one.
    """
    schema = pa.schema([(column, pa.float64())])
    for file in files:
        num_before = 0
        for rows in read_rows([file], schema, may_lack=True):
            known = rows[column].is_valid().to_numpy()
            values = rows[column].to_numpy()
            for row in np.flatnonzero(known & ~(np.abs(values) <= largest))[:1]:
                raise ShardError(
                    f"{origin or file}: row {num_before + row:,} (counted from 0) has "
                    f"{float(values[row])!r} in column '{column}', expected null or a number of at "
                    f"most {largest:.2g}, which {why} can hold. Correct it."
                )
            num_before += rows.num_rows
