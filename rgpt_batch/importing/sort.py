"""Rows in another order, out of core: DuckDB sorts, and every value comes out as it went in.

Texts travel as bytes, so those that are not valid UTF-8 survive; what DuckDB would round (times in
nanoseconds with a time zone) or does not know is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import duckdb
import pyarrow as pa

from rgpt_batch.database import open_database
from rgpt_batch.errors import ConfigError, RgptBatchError, ShardError

_BATCH_ROWS = 2048
_ROWS = "given"


def check_sortable(schema: pa.Schema) -> None:
    """Raise ConfigError where a column cannot be carried through DuckDB without loss."""
    for field in schema:
        if _packed(field.type) is None:
            raise ConfigError(
                f"output.pass_through: column '{field.name}' is {field.type}, which cannot be "
                "carried into another order of rows. Cast it, leave it out, or use --order input."
            )


def sort_rows(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    order_by: str,
    *,
    memory_gib: float,
    folder: str,
    remedy: str,
    choose: Callable[[duckdb.DuckDBPyConnection], str] = lambda connection: "",
) -> Iterator[pa.RecordBatch]:
    """Yield rows in order, in small batches.

    Args:
        batches: The rows; read once.
        schema: Theirs; see check_sortable.
        order_by: SQL over the columns; all texts are BLOB there.
        memory_gib: What DuckDB may hold in memory.
        folder: Where it puts what does not fit.
        remedy: What an error says about a lack of memory or disk.
        choose: Returns the SQL behind FROM that leaves rows out; what it needs, it makes first.

    Raises:
        ConfigError: Memory or disk are too small.
        RgptBatchError: What reading the batches raises.
    """
    packed = pa.schema([(field.name, _packed(field.type)) for field in schema])
    errors: list[RgptBatchError] = []
    reader = pa.RecordBatchReader.from_batches(packed, _pack(batches, packed, errors))
    try:
        with open_database(memory_gib, folder, remedy=remedy) as connection:
            chosen = choose(connection)
            # Rows come as a stream of unknown length: what they are joined with is held.
            connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
            connection.register(_ROWS, reader)
            result = connection.execute(
                f"SELECT {_ROWS}.* FROM {_ROWS} {chosen} ORDER BY {order_by}"
            )
            for batch in result.to_arrow_reader(_BATCH_ROWS):
                columns = [_unpack(batch[field.name], field.type) for field in schema]
                yield pa.record_batch(columns, schema=schema)
    except ShardError as error:
        # DuckDB reports what reading has raised as an error of its own.
        raise errors[0] if errors else error from error


def _pack(
    batches: Iterable[pa.RecordBatch], packed: pa.Schema, errors: list[RgptBatchError]
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in batches:
            columns = [batch[field.name].cast(field.type) for field in packed]
            yield pa.record_batch(columns, schema=packed)
    except RgptBatchError as error:
        errors.append(error)
        raise


def _packed(given: pa.DataType) -> pa.DataType | None:
    """Return the type as which DuckDB gets a column; None where it would not come back whole."""
    if pa.types.is_dictionary(given):
        return _packed(given.value_type)
    if (
        pa.types.is_string(given)
        or pa.types.is_large_string(given)
        or pa.types.is_string_view(given)
        or pa.types.is_binary(given)
        or pa.types.is_large_binary(given)
        or pa.types.is_fixed_size_binary(given)
        # Such a column holds nothing but nulls.
        or pa.types.is_null(given)
    ):
        return pa.large_binary()
    if pa.types.is_list(given) or pa.types.is_large_list(given):
        inner = _packed(given.value_type)
        return inner and pa.large_list(inner)
    is_rounded_time = given == pa.timestamp("ns", getattr(given, "tz", None)) and given.tz
    if (
        pa.types.is_boolean(given)
        or pa.types.is_integer(given)
        or pa.types.is_float32(given)
        or pa.types.is_float64(given)
        or pa.types.is_date32(given)
        or pa.types.is_decimal128(given)
        or (pa.types.is_timestamp(given) and not is_rounded_time)
    ):
        return given
    return None


def _unpack(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_null(wanted):
        return pa.nulls(len(column))
    if pa.types.is_dictionary(wanted):
        return _unpack(column, wanted.value_type).dictionary_encode().cast(wanted)
    # Bytes that are no valid text stay as they are.
    return column.cast(wanted, safe=False)
