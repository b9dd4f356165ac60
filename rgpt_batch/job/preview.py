"""What a job would do, without doing it: for `plan`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rgpt_batch.config.options import JobConfig
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.job.order import with_order
from rgpt_batch.job.plan import check_places, identify, open_input
from rgpt_batch.job.restore import unscored
from rgpt_batch.output import Store, open_store
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.planning.pair_shards import JobInput, Report
from rgpt_batch.planning.same_job import is_same_job
from rgpt_batch.ranking.top import TopPairs
from rgpt_batch.records import WorkUnit
from rgpt_batch.reuse.earlier import EarlierScores, find_earlier_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a job would do.

    Attributes:
        config: With the model pinned to a commit.
        source: The input, in the order in which it will be scored.
        manifest: The plan that would be in force.
        store: The output folder.
        remaining: The units that are not committed.
        is_of_another_job: Whether the output folder holds other scores.
        earlier: Scores that may be reused; None where none were asked for.
    """

    config: JobConfig
    source: JobInput
    manifest: Manifest
    store: Store
    remaining: tuple[WorkUnit, ...]
    is_of_another_job: bool
    earlier: EarlierScores | None


@contextmanager
def preview(
    config: JobConfig,
    inputs: Sequence[str],
    output: str,
    *,
    tables: TextTables | None = None,
    reuse: str | None = None,
    only: TopPairs | None = None,
    report: Report = lambda message: None,
) -> Iterator[Preview]:
    """Look ahead, and write nothing to the output folder.

    Tables of texts are joined, and pairs are chosen, in a temporary folder, as long as the context
    is open. Pairs are not clustered: the units are those of input order, about as many. Where the
    job was planned already, its plan and its pairs are taken.

    Args:
        config: The job's.
        inputs: As for run_job.
        output: As for run_job.
        tables: As for run_job.
        reuse: As for run_job.
        only: As for run_job.
        report: Is called with a line of text before work that takes long.

    Raises:
        ConfigError, ShardError, ManifestMismatch, StorageError: As run_job.
    """
    check_places(output, tables=tables, reuse=reuse)
    store = open_store(output)
    given = open_input(config, inputs, tables, only)
    config, source = with_order(config, given, store, report, only)
    job = identify(config, source, output)
    found = store.load_manifest()
    is_ours = found is not None and is_same_job(found.identity, job.identity)
    earlier = None if reuse is None else find_earlier_scores(reuse, store, job.identity)
    with tempfile.TemporaryDirectory(prefix="rgpt-batch-") as work:
        manifest = found if found is not None and is_ours else job.sketch(work, report)
        remaining = unscored(store, manifest) if is_ours else list(manifest.units)
        yield Preview(
            config=job.config,
            source=source,
            manifest=manifest,
            store=store,
            remaining=tuple(remaining),
            is_of_another_job=found is not None and not is_ours,
            earlier=earlier,
        )
