"""In which order a job scores and writes its rows: `units.order` and `output.order`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError, StorageError
from rgpt_batch.importing.arranged import ArrangedPairs
from rgpt_batch.importing.join import Chosen
from rgpt_batch.importing.joined import JoinedTables
from rgpt_batch.output import Store
from rgpt_batch.planning.documents import DocumentCounts, count_documents, shares_documents
from rgpt_batch.planning.identity import PairFiles, RowOrder
from rgpt_batch.planning.pair_shards import JobInput, PairShards, Report
from rgpt_batch.planning.same_job import with_full_paths
from rgpt_batch.planning.units import plan_units
from rgpt_batch.storage.files import local_path

# Ids of documents are counted unasked where that takes a few seconds.
_FEW_ROWS = 5_000_000


def with_order(
    config: JobConfig,
    source: JobInput,
    store: Store,
    report: Report,
    only: Chosen | None = None,
) -> tuple[JobConfig, JobInput]:
    """Settle which rows are scored, and in which order.

    Args:
        config: The job's.
        source: The input as it is.
        store: The output folder. Where `auto` was settled in it before, that stays.
        report: Is told of documents that repeat.
        only: Pairs that alone are wanted; of tables, see JoinedTables.

    Returns:
        The configuration with an order that is not `auto`, and the input in that order.

    Raises:
        ConfigError: Options do not go together, or the output is in an object store.
        ShardError: A file cannot be used.
    """
    if not isinstance(source, PairShards):
        if config.output.order == "input" and isinstance(source, JoinedTables):
            raise ConfigError(
                "output.order=input does not go with --queries or --documents: joined pairs come "
                "ordered by document. Leave it out."
            )
        return config, source
    if config.units.order == "auto":
        settled = _settled(config, source, store, report, only)
        config = config.with_options({"units.order": settled})
    by_document = config.units.order == "document"
    if not by_document and only is None:
        return config, source
    if not local_path(store.location):
        option = "--order document" if by_document else "--only"
        raise ConfigError(
            f"{store.location}: {option} needs an output folder on a file system, since the pairs "
            "are kept there. Use a folder, or leave the option out."
        )
    restored = by_document and config.output.order == "input"
    if restored and only is not None:
        raise ConfigError(
            "output.order=input and --order document do not go with --only, whose rows are few: "
            "source_file and source_row say where each is from. Leave one of them out."
        )
    if not restored:
        config = config.with_options({"output.source": True})
    order: RowOrder = "restored" if restored else "document" if by_document else "input"
    return config, ArrangedPairs(config, source, order, only)


def arranged(
    config: JobConfig, pairs: PairShards, order: RowOrder, only: Chosen | None
) -> JobInput:
    """Return pairs as it was settled before."""
    return pairs if order == "input" and only is None else ArrangedPairs(config, pairs, order, only)


def count(config: JobConfig, source: JobInput, report: Report) -> DocumentCounts | None:
    """Count documents of an input as it is; None where clustering cannot save anything.

    Raises:
        ShardError: A file cannot be read.
    """
    pairs = source
    if isinstance(source, ArrangedPairs) and source.only is None:
        pairs = source.pairs
    if not isinstance(pairs, PairShards) or not shares_documents(config):
        return None
    return count_documents(plan_units(pairs.shards("", "", report), config.units), pairs.columns)


def advise(config: JobConfig, source: JobInput, report: Report) -> None:
    """Say before a new job begins that clustering would save a lot, where that is cheap to know."""
    if isinstance(source, PairShards) and all(map(local_path, source.paths)):
        num_rows = sum(shard.num_rows for shard in source.shards("", "", report))
        counts = None
        # It is advice alone: what cannot be read, the job will say.
        with suppress(ShardError, StorageError, ConfigError):
            counts = count(config, source, report) if num_rows <= _FEW_ROWS else None
        if counts is not None and counts.pays:
            report(
                f"{counts}: --order document computes {counts.share_of_documents:.0%} of the "
                "documents' tokens"
            )


def _settled(
    config: JobConfig, source: PairShards, store: Store, report: Report, only: Chosen | None
) -> str:
    if only is not None:
        # Chosen pairs are copied anyway.
        return "document" if shares_documents(config) else "input"
    found = None
    # What else is there, the job says when it looks for its plan.
    with suppress(ManifestMismatch):
        found = store.load_manifest() if store.has_manifest() else None
    if found is not None and isinstance(found.identity.input, PairFiles):
        before = found.identity.input
        if with_full_paths(replace(source.facts(), order=before.order)) == before:
            return "input" if before.order == "input" else "document"
    counts = count(config, source, report)
    if counts is None or not counts.pays:
        return "input"
    if not local_path(store.location):
        report(f"{counts}; they stay so, since the output is in an object store")
        return "input"
    report(f"{counts}: clustering them")
    return "document"
