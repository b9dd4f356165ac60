"""Comparing outputs row by row: the oracle of the kill tests. What it catches: test_oracle.py."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.e2e.processes import parts


def read_output(output: Path) -> pa.Table:
    """Read all columns of all committed files, in the order of the units."""
    return pa.concat_tables([pq.read_table(part) for part in parts(output)])


def row_differences(expected: pa.Table, found: pa.Table) -> list[str]:
    """Say how the rows of two outputs differ, all columns and the order included; [] if equal."""
    if expected.schema.remove_metadata() != found.schema.remove_metadata():
        return ["the schemas differ"]
    rows = [[repr(row) for row in table.to_pylist()] for table in (expected, found)]
    wanted, there = map(Counter, rows)
    differences = [f"missing: {row}" for row in (wanted - there).elements()]
    differences += [f"too many: {row}" for row in (there - wanted).elements()]
    if not differences and rows[0] != rows[1]:
        differences.append("the order differs")
    return differences


def identities(output: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time and size of every committed file: what a file that is written again changes."""
    status = {part.name: part.stat() for part in parts(output)}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_size) for name, s in status.items()}
