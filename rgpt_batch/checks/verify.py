"""Is an output folder what it claims to be? Every check reads the files, none trusts a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rgpt_batch.checks.reference import (
    default_tolerance,
)
from rgpt_batch.checks.rescore import choose_rows, rescore
from rgpt_batch.checks.sources import check_sources
from rgpt_batch.config.arguments import Location
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError, StorageError
from rgpt_batch.formatting import format_count
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.footers import read_error
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.output import open_store
from rgpt_batch.output.runs import recorded_config
from rgpt_batch.output.score_file import (
    LABEL_SCHEMA,
    PAIR_HASH,
    SCORE_SCHEMA,
    Footer,
    read_footer,
)
from rgpt_batch.output.store import CommittedFile, Listing
from rgpt_batch.planning.identity import Identity
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import WorkUnit
from rgpt_batch.scoring.pair_hash import NUM_BYTES, pair_hashes
from rgpt_batch.scoring.score import MAX_LOGPROB
from rgpt_batch.storage.files import open_source, sha256

_REPAIR = "Delete the file and run the job again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked, and what is wrong.

    Attributes:
        max_score_error: Largest difference to the reference among the sampled rows.
        score_unit: Of max_score_error; empty where scores are logits.
    """

    num_files: int
    num_rows: int
    num_rescored: int
    max_score_error: float
    score_unit: str
    problems: tuple[str, ...]


def verify_output(
    output: Location,
    *,
    num_rescored: int = 0,
    tolerance: float | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda message: None,
) -> Verification:
    """Check an output folder against its plan, its input and its success file.

    Args:
        output: The output folder, a path or URI.
        num_rescored: How many random rows to score again with the float32 reference engine.
        tolerance: Largest allowed difference of a score to the reference.
        seed: Chooses the rows.
        report: Is called with a line of text whenever there is progress to tell.

    Raises:
        ConfigError: The folder holds no job.
    """
    store = open_store(output)
    manifest = store.load_manifest()
    if manifest is None:
        raise ConfigError(f"{store.location}: no job was planned here; nothing to verify.")
    listing = store.listing()
    files = listing.files
    problems = list(_check_listing(listing, manifest))
    report(f"checking {format_count(len(files), 'file')}")
    num_rows = 0
    intact: list[WorkUnit] = []
    for unit in manifest.units:
        if unit.unit_id not in files:
            continue
        found = list(_check_file(files[unit.unit_id], unit, manifest))
        problems += found
        if not found:
            intact.append(unit)
            num_rows += unit.num_rows
    if not problems:
        problems += check_sources(files, manifest)
    max_error, num_done = 0.0, 0
    if num_rescored and intact:
        config = recorded_config(store, manifest)
        sampled = choose_rows(intact, num_rescored, seed)
        compared = rescore(config, manifest, files, sampled, report)
        if tolerance is None:
            values = [value for each in compared for value in each.deviation.expected.tolist()]
            tolerance = default_tolerance(config, values)
        num_done = sum(len(each.rows) for each in compared)
        max_error = max((each.deviation.largest for each in compared), default=0.0)
        problems += [problem for each in compared for problem in each.problems(tolerance)]
    return Verification(
        num_files=len(files),
        num_rows=num_rows,
        num_rescored=num_done,
        max_score_error=max_error,
        score_unit=manifest.identity.score_unit,
        problems=tuple(problems),
    )


def _check_listing(listing: Listing, manifest: Manifest) -> Iterator[str]:
    planned, files = {unit.unit_id for unit in manifest.units}, listing.files
    for unit_id in sorted(planned - files.keys()):
        yield f"part-{unit_id}.parquet: missing. Run the job again."
    for unit_id in sorted(files.keys() - planned):
        yield f"{files[unit_id].path}: not part of this job. Delete it."
    success = listing.declared
    if success is None:
        if listing.is_declared:
            yield "_SUCCESS: damaged, or of another version of rgpt-batch. Run the job again."
        else:
            yield "_SUCCESS: missing; the job has not finished. Run it again."
        return
    if success.fingerprint != manifest.fingerprint or success.files.keys() != planned:
        yield "_SUCCESS: not of this job, or not of all of its units. Run the job again."
        return
    for unit_id in sorted(planned & files.keys()):
        path = files[unit_id].path
        try:
            if sha256(path) != success.files[unit_id].sha256:
                yield f"{path}: its checksum differs from _SUCCESS. {_REPAIR}"
        except (StorageError, OSError) as error:
            yield f"{read_error(path, error)}"


def _check_file(file: CommittedFile, unit: WorkUnit, manifest: Manifest) -> Iterator[str]:
    """Check one file's footer, its values, and its ids against the input."""
    fix = _REPAIR
    try:
        footer, table = _read_file(file.path)
    except ShardError as error:
        yield f"{error} {fix}"
        return
    except (ManifestMismatch, StorageError) as error:
        yield str(error)
        return
    expected = [*SCORE_SCHEMA, *(LABEL_SCHEMA if manifest.identity.judges else ())]
    if wrong := [field.name for field in expected if field not in list(table.schema)]:
        yield f"{file.path}: {', '.join(wrong)} missing or of another type. {fix}"
        return
    if footer.fingerprint != manifest.fingerprint or footer.unit_id != unit.unit_id:
        yield f"{file.path}: its footer names another job or unit. {fix}"
    if table.num_rows != unit.num_rows:
        yield f"{file.path}: {table.num_rows} rows, expected {unit.num_rows}. {fix}"
        return
    scores, rejections = table["score"], table["rejection"]
    if pc.any(pc.equal(pc.is_null(scores), pc.is_null(rejections))).as_py():
        yield f"{file.path}: a row has both a score and a rejection, or neither. {fix}"
    values = scores.drop_null().to_numpy()
    highest = MAX_LOGPROB if manifest.identity.has_logprobs else np.inf
    if not np.isfinite(values).all() or (values > highest).any():
        above = ", or above 0" if manifest.identity.has_logprobs else ""
        yield f"{file.path}: a score is not finite{above}. {fix}"
    if manifest.identity.judges and not _follow_from_logits(table, manifest.identity):
        yield f"{file.path}: a score is not what its logit says. {fix}"
    try:
        ids, hashes = _input_ids_and_hashes(unit, manifest.columns)
    except ShardError as error:
        yield f"{file.path}: its input cannot be read again: {error}"
        return
    if not ids.equals(table.select(["query_id", "doc_id"])):
        yield f"{file.path}: its ids are not those of the input, in the input's order. {fix}"
    if manifest.identity.written.pair_hash:
        if PAIR_HASH not in table.column_names:
            yield f"{file.path}: {PAIR_HASH} missing. {fix}"
            return
        # One in every row but the rejected ones.
        is_kept = rejections.combine_chunks().is_null()
        expected = pa.chunked_array([pc.if_else(is_kept, hashes, None)])
        if not table[PAIR_HASH].equals(expected):
            yield f"{file.path}: a {PAIR_HASH} is not that of the input's texts. {fix}"


def _follow_from_logits(table: pa.Table, identity: Identity) -> bool:
    """Whether each score is what to_score makes of the logit beside it."""
    if not table["logit"].is_null().equals(table["score"].is_null()):
        return False
    logits = table["logit"].drop_null().to_numpy().astype(np.float64)
    scores = -np.logaddexp(0.0, -logits) if identity.has_logprobs else logits
    # Both are rounded to float32.
    found = table["score"].drop_null().to_numpy()
    return bool(np.allclose(found, scores, rtol=1e-4, atol=1e-30))


def _read_file(path: str) -> tuple[Footer, pa.Table]:
    """Read footer and rows; errors as read_footer."""
    footer, _ = read_footer(path)
    try:
        # Page checksums are compared while reading.
        return footer, pq.read_table(open_source(path), page_checksum_verification=True)
    except (OSError, MemoryError, pa.ArrowException) as error:
        raise read_error(path, error) from error


def _input_ids_and_hashes(unit: WorkUnit, columns: Columns) -> tuple[pa.Table, pa.Array]:
    batches = []
    hashes: list[bytes | None] = []
    for batch in read_pairs(unit, columns, source=False):
        batches.append(batch.columns)
        hashes += pair_hashes(batch.pairs)
    ids = pa.Table.from_batches(batches).select(["query_id", "doc_id"])
    schema = pa.schema([SCORE_SCHEMA.field(name) for name in ids.column_names])
    return ids.cast(schema), pa.array(hashes, pa.binary(NUM_BYTES))
