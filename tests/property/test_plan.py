"""A plan covers every row exactly once, in order, and within its limits."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.config.options import InputConfig, UnitsConfig
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.inspect import RowGroup, Shard, inspect_shards
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.planning.units import plan_units
from rgpt_batch.records import ScorePair, WorkUnit

COLUMNS = Columns(query_id="query_id", doc_id="doc_id", query="query", document="document")

row_groups = st.builds(
    RowGroup,
    num_rows=st.one_of(st.integers(0, 20), st.integers(0, 400)),
    num_bytes=st.one_of(st.just(0), st.integers(0, 1000), st.integers(0, 10**9)),
)
limits = st.builds(
    UnitsConfig,
    max_rows=st.one_of(st.integers(1, 10), st.integers(1, 1000)),
    max_bytes=st.one_of(st.integers(1, 100), st.integers(1, 10**9)),
)


def _shards(groups: Sequence[Sequence[RowGroup]]) -> list[Shard]:
    return [
        Shard(
            path=f"/in/{index:03d}.parquet",
            version=f"v{index}",
            columns=COLUMNS,
            pass_through_types=(),
            row_groups=tuple(row_groups),
        )
        for index, row_groups in enumerate(groups)
    ]


def _planned_rows(units: Sequence[WorkUnit]) -> list[tuple[str, str, int]]:
    return [
        (segment.path, segment.version, row)
        for unit in units
        for segment in unit.segments
        for row in range(segment.first_row, segment.first_row + segment.num_rows)
    ]


@given(st.lists(st.lists(row_groups, max_size=5), min_size=1, max_size=6), limits)
@settings(max_examples=100)
def test_every_row_is_in_exactly_one_unit_in_input_order(
    groups: list[list[RowGroup]], config: UnitsConfig
) -> None:
    shards = _shards(groups)
    units = plan_units(shards, config)
    assert _planned_rows(units) == [
        (shard.path, shard.version, row) for shard in shards for row in range(shard.num_rows)
    ]
    assert [unit.unit_id for unit in units] == [f"{index:06d}" for index in range(len(units))]
    assert plan_units(_shards(groups), config) == units


@given(st.lists(st.lists(row_groups, max_size=5), min_size=1, max_size=6), limits)
@settings(max_examples=100)
def test_units_respect_both_limits_and_their_bytes_add_up(
    groups: list[list[RowGroup]], config: UnitsConfig
) -> None:
    units = plan_units(_shards(groups), config)
    for unit in units:
        assert unit.num_rows <= config.max_rows
        assert unit.num_bytes <= config.max_bytes or unit.num_rows == 1
    read = [group for shard in groups for group in shard if group.num_rows]
    assert sum(unit.num_bytes for unit in units) == sum(group.num_bytes for group in read)


@given(
    st.lists(st.lists(st.integers(0, 300), max_size=5), min_size=1, max_size=4),
    st.integers(1, 50),
    limits,
)
def test_units_of_equally_large_rows_hold_no_more_bytes_than_allowed(
    group_rows: list[list[int]], row_bytes: int, config: UnitsConfig
) -> None:
    groups = [[RowGroup(num_rows=n, num_bytes=n * row_bytes) for n in rows] for rows in group_rows]
    for unit in plan_units(_shards(groups), config):
        assert unit.num_rows * row_bytes <= config.max_bytes or unit.num_rows <= 1


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.integers(1, 100))
def test_tiny_files_are_put_together_until_a_unit_is_full(
    file_rows: list[int], max_rows: int
) -> None:
    shards = _shards([[RowGroup(num_rows=n, num_bytes=n)] for n in file_rows])
    units = plan_units(shards, UnitsConfig(max_rows=max_rows, max_bytes=10**9))
    for unit, following in pairwise(units):
        assert unit.num_rows + following.segments[0].num_rows > max_rows


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(100, 5000),
)
@settings(max_examples=40)
def test_reading_the_units_gives_what_pyarrow_reads_from_the_files(
    file_rows: list[int], row_group_size: int, max_rows: int, max_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for index, num_rows in enumerate(file_rows):
            names = [f"{index}-{row}" for row in range(num_rows)]
            text = {
                "query": [f"q {n}" for n in names],
                "document": [f"d {n}" * 5 for n in names],
            }
            table = pa.table(
                {"query_id": names, "doc_id": names, **text},
                schema=pa.schema({name: pa.string() for name in COLUMNS.read}),
            )
            pq.write_table(table, f"{folder}/{index}.parquet", row_group_size=row_group_size)
            tables.append(table)
        paths = [str(path) for path in sorted(Path(folder).iterdir())]
        shards = inspect_shards(paths, InputConfig(), ())
        units = plan_units(shards, UnitsConfig(max_rows=max_rows, max_bytes=max_bytes))

        expected = pa.concat_tables(tables)
        row = 0
        for unit in units:
            batches = list(read_pairs(unit, COLUMNS, source=True))
            ids = pa.Table.from_batches([batch.columns for batch in batches])
            wanted = expected.slice(row, unit.num_rows)
            assert ids["query_id"].to_pylist() == wanted["query_id"].to_pylist()
            assert ids["doc_id"].to_pylist() == wanted["doc_id"].to_pylist()
            assert [pair for batch in batches for pair in batch.pairs] == [
                ScorePair(query=query, document=document)
                for query, document in zip(
                    wanted["query"].to_pylist(), wanted["document"].to_pylist(), strict=True
                )
            ]
            assert [
                f"{Path(path).stem}-{source_row}"
                for path, source_row in zip(
                    ids["source_file"].to_pylist(), ids["source_row"].to_pylist(), strict=True
                )
            ] == ids["query_id"].to_pylist()
            row += unit.num_rows
        assert row == expected.num_rows
