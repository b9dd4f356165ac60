"""Pairs of which some are chosen, or that are brought together by document, before units are cut.

facts     the files, which rows are taken, and in which order; the job's identity covers all
shards    out of core, to shards below the output folder. By document, rows of one document follow
          each other, and units end where documents do
score     like any shards; each row says which file and row it came from

An engine with a prefix cache then computes a document once for all its queries, however far apart
they stand in the input. Shards stay when the job is done, since `verify` reads them; deleting
_rgpt/pairs-* then does no other harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rgpt_batch.config.options import ColumnNames, InputConfig, JobConfig
from rgpt_batch.database import open_database
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.formatting import format_count
from rgpt_batch.importing.chosen import pick, positions
from rgpt_batch.importing.join import Chosen
from rgpt_batch.importing.shards import (
    ROWS_PER_SHARD,
    document_groups,
    make_shards,
    row_groups,
    write_shards,
)
from rgpt_batch.importing.sort import Keys, check_sortable, sort_rows
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.find import resolve_inputs
from rgpt_batch.input.inspect import Shard, inspect_shards
from rgpt_batch.input.pairs import (
    ORIGIN,
    ORIGIN_FILE,
    ORIGIN_ROW,
    ORIGIN_UNREADABLE,
    Unreadable,
    as_bytes,
    read_segment,
)
from rgpt_batch.input.rows import read_schema
from rgpt_batch.planning.identity import PairFiles, RowOrder
from rgpt_batch.planning.pair_shards import PairShards, Report

_TEXT = pa.string()
_REMEDY = "Raise input.join_memory_gib, make room where the output folder is, or use --order input."


class ArrangedPairs:
    """Pairs with texts, chosen or clustered by document; see JobInput.

    Args:
        config: The job's.
        pairs: The input as it is.
        order: What becomes of the rows' order.
        only: Pairs that alone are wanted; None for all.
    """

    def __init__(
        self, config: JobConfig, pairs: PairShards, order: RowOrder, only: Chosen | None = None
    ) -> None:
        self.only = only
        self.arguments = pairs.arguments
        self.paths = pairs.paths
        self.pairs = pairs
        self._config = config
        self.order: RowOrder = order

    @property
    def columns(self) -> Columns:
        """The columns, which keep their names."""
        return self.pairs.columns

    def facts(self) -> PairFiles:
        """Say which files, in which versions, and what becomes of their order."""
        only = None if self.only is None else self.only.facts()
        return replace(self.pairs.facts(), order=self.order, only=only)

    def shards(self, fingerprint: str, output: str, report: Report) -> Sequence[Shard]:
        """Arrange the pairs, or find that done, and return the shards.

        Raises:
            ConfigError: The disk is too small, a column cannot be carried, or no pair is chosen.
            ShardError: A file has changed meanwhile.
        """
        given = self.pairs.shards(fingerprint, output, report)
        num_rows = sum(shard.num_rows for shard in given)
        if not num_rows:
            return given
        folder = Path(output, "_rgpt", f"pairs-{fingerprint}")
        if not folder.is_dir():
            pairs = format_count(num_rows, "pair")
            if self.only is not None:
                report(f"choosing among {pairs}")
            else:
                report(f"bringing {pairs} together by document")
            make_shards(folder, lambda shards, work: self._arrange(given, shards, work))
        columns = self.columns
        names = ColumnNames(
            query_id=columns.query_id,
            doc_id=columns.doc_id,
            query=columns.query,
            document=columns.document,
        )
        paths = resolve_inputs([str(folder)])
        made = inspect_shards(paths, InputConfig(columns=names), columns.pass_through)
        found = sum(shard.num_rows for shard in made)
        if self.only is not None:
            report(f"{format_count(found, 'pair')} of {num_rows:,} are chosen")
        elif found != num_rows:
            raise ShardError(
                f"{folder}: holds {found:,} rows, expected {num_rows:,}. Delete the folder, then "
                "run the same command again."
            )
        return made

    def _arrange(self, given: Sequence[Shard], shards: Path, work: str) -> None:
        schema = _schema(given[0], self.columns)
        check_sortable(schema)
        document = self.columns.document
        rows = _rows(given, self.columns, schema)
        if self.only is not None:
            rows = pick(rows, self._positions(given, self.only, work))
        if self.order == "input":
            groups = row_groups(rows, ROWS_PER_SHARD)
        else:
            by_document = sort_rows(
                ((_hashes(batch[document]), batch) for batch in rows),
                schema,
                key_bits=64,
                memory_gib=self._config.input.join_memory_gib,
                folder=work,
                remedy=_REMEDY,
            )
            groups = document_groups(by_document, document, self._config.units)
        if not write_shards(groups, shards, ROWS_PER_SHARD) and self.only is not None:
            raise ConfigError(
                f"{self.only.facts().ranking}: holds none of the input's pairs. Compare the ids of "
                "both."
            )

    def _positions(
        self, given: Sequence[Shard], only: Chosen, work: str
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the places of wanted rows in the input, in order. Texts are not read for this."""
        memory_gib = self._config.input.join_memory_gib
        with open_database(memory_gib, work, remedy=_REMEDY) as connection:
            only.load(connection, "chosen")
            yield from positions(connection, given, self.columns)


def _schema(shard: Shard, columns: Columns) -> pa.Schema:
    if taken := sorted(set(ORIGIN).intersection(columns.read)):
        raise ShardError(f"{shard.path}: the name of column '{taken[0]}' is ours. Rename it.")
    found = read_schema(shard.path)
    # Shards may spell ids and texts in several types; what is passed through has one.
    read = [
        pa.field(name, _wide(found.field(name).type) if name in columns.pass_through else _TEXT)
        for name in columns.read
    ]
    return pa.schema(
        [
            *read,
            pa.field(ORIGIN_FILE, pa.dictionary(pa.int32(), pa.string())),
            pa.field(ORIGIN_ROW, pa.int64()),
            pa.field(ORIGIN_UNREADABLE, pa.bool_()),
        ]
    )


def _rows(shards: Sequence[Shard], columns: Columns, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield all rows of the input, with where they came from."""
    for shard in shards:
        for batch, first_row in read_segment(shard.whole, columns.read):
            num_rows = batch.num_rows
            values = {
                name: pa.nulls(num_rows, schema.field(name).type)
                if isinstance(batch, Unreadable)
                else _cast(batch[name], schema.field(name).type)
                for name in columns.read
            }
            values[ORIGIN_FILE] = pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(num_rows, np.int32)), pa.array([shard.path])
            )
            values[ORIGIN_ROW] = pa.array(np.arange(first_row, first_row + num_rows))
            values[ORIGIN_UNREADABLE] = pa.repeat(isinstance(batch, Unreadable), num_rows)
            yield pa.record_batch(list(values.values()), schema=schema)


def _hashes(documents: pa.Array) -> Keys:
    """Return a hash of each text, the same on every machine; 0 where there is none."""
    digests = [
        bytes(8) if text is None else hashlib.blake2b(text, digest_size=8).digest()
        for text in as_bytes(documents).to_pylist()
    ]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def _wide(given: pa.DataType) -> pa.DataType:
    """Make room: rows that come to stand together may have the values of several dictionaries."""
    if pa.types.is_dictionary(given):
        return pa.dictionary(pa.int32(), given.value_type)
    return given


def _cast(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if column.type == wanted:
        return column
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(wanted):
        column = column.dictionary_decode()
    # Bytes that are no valid text stay as they are.
    return column.cast(wanted, safe=False)
