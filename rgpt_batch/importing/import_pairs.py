"""From what a search engine leaves to pair shards that are ready to score.

source   sources/*             files of one format → three relations
check    join.Join             duplicate ids, unknown ids
join     join.Join             one DuckDB query, out of core, ordered by query or document
shards   write_shards          zstd Parquet in a hidden folder
publish  one rename            the output folder is there with all its rows, or not at all
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rgpt_batch.config.arguments import Location, as_location, check_choice
from rgpt_batch.database import open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.join import Join, MissingIds, Order
from rgpt_batch.importing.readers.relations import Relations, Source
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.shards import row_groups, write_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How an import works.

    Attributes:
        rows_per_shard: Rows of every output file but the last.
        order: What rows are ordered by. By document, neighbours have the same document: the shards
            are smaller, and an engine with a prefix cache reads it once.
        missing: What to do about candidates whose query or document is unknown: publish nothing, or
            keep their rows with null text, which `score` rejects with a reason.
        memory_gib: What DuckDB may hold in memory; above, it spills to disk.
        temp_folder: Where it spills to, and where text files are kept as Parquet in the meantime.
            Default: a hidden folder beside the output. Either holds up to the size of all texts.
    """

    rows_per_shard: int = 100_000
    order: Order = "query"
    missing: Literal["error", "null"] = "error"
    memory_gib: float = 2.0
    temp_folder: Location | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What an import found and wrote.

    Attributes:
        relations: Where ids and texts came from.
        num_shards: Files that were published; 0 if ids are missing and that is an error.
    """

    relations: Relations
    num_pairs: int
    num_queries: int
    num_shards: int
    missing_queries: MissingIds
    missing_documents: MissingIds

    @property
    def exit_code(self) -> int:
        """0, or 3 where nothing was published."""
        return 0 if self.num_shards else 3


def import_pairs(
    source: Source,
    output: Location,
    options: ImportOptions | None = None,
    *,
    report: Callable[[str], None] = lambda message: None,
) -> ImportSummary:
    """Write the pairs of a source as Parquet shards.

    Columns: query_id, query, doc_id, document, and where the source knows them first_stage_score
    and first_stage_rank. By default rows are ordered by query_id, then rank, score and doc_id.

    Args:
        source: What to import.
        output: A folder that is missing or empty.
        options: See ImportOptions.
        report: Is called with a line of text whenever there is progress to tell.

    Raises:
        ConfigError: The output folder is not empty, or memory or disk are too small.
        ShardError: The source is unreadable, malformed or ambiguous.
    """
    options = options or ImportOptions()
    check_choice(options.order, "order", get_args(Order))
    check_choice(options.missing, "missing", ("error", "null"))
    final = Path(as_location(output, "output")).resolve()
    given = options.temp_folder
    temp_folder = None if given is None else as_location(given, "temp_folder")
    with (
        _staging(final, temp_folder) as (shards, work),
        open_database(options.memory_gib, str(work)) as connection,
    ):
        relations = source.open(Spool(work, report))
        report("looking for duplicate and missing ids")
        join = Join(connection, relations)
        join.check()
        num_pairs, num_queries = join.num_pairs()
        if not num_pairs:
            raise ConfigError(f"{relations.candidates.origin}: holds no pairs. Give another file.")
        missing_queries, missing_documents = join.missing_queries(), join.missing_documents()
        num_missing = missing_queries.num_pairs + missing_documents.num_pairs
        num_shards = 0
        if options.missing == "null" or not num_missing:
            report(f"joining {num_pairs:,} pairs with their texts")
            with _explained(final.parent, "Make room, or give another --output."):
                rows = join.batches(
                    options.order,
                    memory_gib=options.memory_gib,
                    folder=str(work),
                    remedy="Make room, or set --temp-folder to a folder on a disk with room.",
                )
                groups = row_groups(rows, options.rows_per_shard)
                num_shards = write_shards(groups, shards, options.rows_per_shard)
            _publish(shards, final)
    return ImportSummary(
        relations=relations,
        num_pairs=num_pairs,
        num_queries=num_queries,
        num_shards=num_shards,
        missing_queries=missing_queries,
        missing_documents=missing_documents,
    )


@contextmanager
def _staging(output: Path, temp_folder: str | None) -> Iterator[tuple[Path, Path]]:
    """Make a folder for shards, beside the output, and one for work; both go in the end."""
    with ExitStack() as stack:
        with _explained(output, "Check the permissions, or give another --output."):
            if output.exists() and (not output.is_dir() or any(output.iterdir())):
                raise ConfigError(
                    f"{output}: exists and is not an empty folder. Give another --output, or "
                    "delete it."
                )
            output.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{output.name}.importing-"
            beside = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=prefix, dir=output.parent)
            )
            # mkdir obeys the umask; the temporary folders are closed to others.
            shards = Path(beside, "shards")
            shards.mkdir()
        folder = temp_folder or beside
        with _explained(folder, "Set --temp-folder to a folder that can be written to."):
            work = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="rgpt-batch-", dir=folder)
            )
        yield shards, Path(work)


@contextmanager
def _explained(place: str | Path, fix: str) -> Iterator[None]:
    """Say where something could not be written, and what to do about it."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written to: {error.strerror or error}. {fix}") from (
            error
        )


def _publish(shards: Path, output: Path) -> None:
    try:
        # Replaces an empty folder; fails if somebody has filled it in the meantime.
        shards.rename(output)
    except OSError as error:
        raise ConfigError(
            f"{output}: cannot publish the shards: {error.strerror}. Give another --output."
        ) from error
    for folder in (output, output.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
