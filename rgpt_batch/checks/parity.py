"""Before a job: does the configured engine agree with the float32 reference on a sample of pairs?

sample    a work unit of single rows   spread over the input, with the longest that was seen
score     twice, by executor and UnitRunner, like any unit: the reference first, then the engine
compare   row by row

Each engine has a worker of its own, where the job's workers will be. With Ray that is a process, so
the second engine finds the memory free that the first one had. The reference runs on a GPU where
the worker has one, else on its CPUs; it takes 4 bytes per parameter there.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.checks.reference import (
    compared_column,
    default_tolerance,
    deviation,
    reference_config,
)
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ParityError
from rgpt_batch.executors import create_executor
from rgpt_batch.executors.unit_runner import UnitRunner
from rgpt_batch.formatting import with_unit
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.output import Store, open_store
from rgpt_batch.output.score_file import LABEL_SCHEMA, SCORE_SCHEMA
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import ScorePair, Segment, UnitFailure, WorkUnit
from rgpt_batch.scoring.pair_hash import pair_hash

# The sample is chosen among rows that are read at so many places of the input.
_NUM_PLACES = 16
_ROWS_PER_PLACE = 512
# Rounding moves a few scores far and most a little: for SmolLM2-135M in bfloat16 the mean is a
# fifth of the largest difference in 100 pairs. A wrong computation shows in the mean first.
_MEAN_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the engine is from the reference.

    Attributes:
        num_pairs: Pairs that both engines were given.
        num_scored: Those that both have scored.
        kendall_tau: Over all scored pairs, ties counted as τ-b does; None where a side is constant.
        tolerance: What max_difference may be; mean_difference may be a quarter of it.
        unit: Of scores and differences; empty where scores are logits.
        problems: Why the engine must not be used, one sentence each.
    """

    num_pairs: int
    num_scored: int
    max_difference: float
    mean_difference: float
    kendall_tau: float | None
    tolerance: float
    unit: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        tau = "undefined" if self.kendall_tau is None else f"{self.kendall_tau:.4f}"
        return (
            f"{self.num_scored:,} of {self.num_pairs:,} pairs scored, differences to the float32 "
            f"reference at most {with_unit(f'{self.max_difference:.2g}', self.unit)}, "
            f"{self.mean_difference:.2g} on average (allowed {self.tolerance:g} and "
            f"{_MEAN_SHARE * self.tolerance:g}), Kendall's tau {tau}"
        )


def check_parity(
    config: JobConfig,
    manifest: Manifest,
    output: Store,
    report: Callable[[str], None] = lambda message: None,
) -> Parity:
    """Score a sample with the configured engine and with the reference, and compare.

    Both results go through the output folder, in a folder of their own in _rgpt/staging: another
    run of the same command may check at the same time. They are deleted at the end.

    Args:
        config: The job's; config.parity says how many pairs, and how far they may be apart.
        manifest: The job's.
        output: The job's.
        report: Is called with a line of text whenever there is progress to tell.

    Raises:
        ParityError: An engine starts, but cannot score the sample.
        RgptBatchError: An engine does not start, or the input cannot be read.
    """
    unit, column = manifest.identity.score_unit, compared_column(manifest.identity)
    sample = choose_sample(manifest, config.parity.num_pairs)
    if not sample.segments:
        report("parity: no pair of the input can be scored, so there is nothing to compare")
        nothing = pa.schema([*SCORE_SCHEMA, *LABEL_SCHEMA]).empty_table()
        limit = default_tolerance(config, [])
        return compare_scores(nothing, nothing, tolerance=limit, unit=unit, column=column)
    tables = []
    with output.temporary_folder() as own:
        for name, chosen in (("reference", reference_config(config)), ("engine", config)):
            report(f"parity: scoring {sample.num_rows:,} pairs, engine {chosen.engine.method}")
            tables.append(_score(chosen, manifest, sample, open_store(f"{own}/{name}")))
    tolerance = config.parity.tolerance or default_tolerance(config, tables[0][column].to_pylist())
    parity = compare_scores(*tables, tolerance=tolerance, unit=unit, column=column)
    report(f"parity: {parity}")
    return parity


def choose_sample(manifest: Manifest, num_pairs: int) -> WorkUnit:
    """Choose rows with different texts; the same for the same job.

    They come from places that are spread evenly over the input, and from where rows are longest on
    average. The longest row that was read is among them, as long prompts cross an engine's chunks.
    """
    chooser = random.Random(manifest.fingerprint)
    places = [_read_place(place, manifest, chooser) for place in _places(manifest, chooser)]
    rows = [row for place in places for row in place]
    chosen: dict[bytes, _Row] = {}
    if rows:
        longest = max(rows, key=lambda row: row.num_characters)
        chosen[longest.hash] = longest
    while any(places) and len(chosen) < num_pairs:
        for place in places:
            if place and len(chosen) < num_pairs:
                row = place.pop()
                chosen.setdefault(row.hash, row)
    segments = sorted((row.segment for row in chosen.values()), key=lambda s: (s.path, s.first_row))
    num_bytes = sum(row.num_characters for row in chosen.values())
    return WorkUnit(unit_id="000000", segments=tuple(segments), num_bytes=num_bytes)


def compare_scores(
    reference: pa.Table,
    engine: pa.Table,
    *,
    tolerance: float,
    unit: str = "nats",
    column: Literal["score", "logit"] = "score",
) -> Parity:
    """Compare two scored tables of the same rows.

    Args:
        reference: Columns query_id, doc_id, rejection and the one to compare.
        engine: The same.
        tolerance: See Parity.
        unit: See Parity.
        column: What to compare; see compared_column.
    """
    problems = []
    if not reference["rejection"].equals(engine["rejection"]):
        problems.append("the two reject different pairs")
    deviates = deviation(reference[column].to_pylist(), engine[column].to_pylist())
    expected, found, differences = deviates.expected, deviates.found, deviates.differences
    mean = float(differences.mean()) if len(differences) else 0.0
    if not np.isfinite(differences).all():
        problems.append("a score is not finite")
    for name, scores in (("engine", found), ("reference", expected)):
        if len(scores) > 1 and np.ptp(scores) == 0:
            problems.append(
                f"all scores of the {name} are {scores[0]:g}, though the texts are different"
            )
    if far := deviates.too_far(tolerance):
        worst = int(differences.argmax())
        (row,) = engine.slice(int(deviates.rows[worst]), 1).to_pylist()
        problems.append(
            f"{len(far):,} pairs are more than {with_unit(f'{tolerance:g}', unit)} off; "
            f"the worst, query '{row['query_id']}' with document '{row['doc_id']}', has {column} "
            f"{found[worst]:.6f}, the reference says {expected[worst]:.6f}"
        )
    if mean > _MEAN_SHARE * tolerance:
        problems.append(
            f"the mean difference is {with_unit(f'{mean:.2g}', unit)}, "
            f"more than {_MEAN_SHARE * tolerance:g}"
        )
    return Parity(
        num_pairs=engine.num_rows,
        num_scored=len(deviates.rows),
        max_difference=deviates.largest,
        mean_difference=mean,
        kendall_tau=_kendall_tau(expected, found),
        tolerance=tolerance,
        unit=unit,
        problems=tuple(problems),
    )


def require_parity(parity: Parity) -> None:
    """Raise ParityError where there are problems."""
    if parity.problems:
        problems = "\n".join(f"  {problem}" for problem in parity.problems)
        raise ParityError(
            f"the engine disagrees with the float32 reference, so nothing was scored:\n{problems}\n"
            "Change model.dtype, engine.method or engine.vllm_args and run the command with "
            "--on-change overwrite, or allow more with parity.tolerance."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    segment: Segment
    hash: bytes
    num_characters: int


def _places(manifest: Manifest, chooser: random.Random) -> Iterator[list[Segment]]:
    """Yield runs of rows: where they are longest on average, then one in every sixteenth."""
    units = [unit for unit in manifest.units if unit.num_rows]
    if not units:
        return
    longest = max(units, key=lambda unit: unit.num_bytes / unit.num_rows)
    yield _cut(longest.segments, 0, _ROWS_PER_PLACE)
    segments = [segment for unit in units for segment in unit.segments]
    bounds = [manifest.num_rows * index // _NUM_PLACES for index in range(_NUM_PLACES + 1)]
    for low, high in itertools.pairwise(bounds):
        if low < high:
            start = chooser.randrange(low, max(low + 1, high - _ROWS_PER_PLACE))
            yield _cut(segments, start, min(start + _ROWS_PER_PLACE, high))


def _cut(segments: Sequence[Segment], low: int, high: int) -> list[Segment]:
    """Return the rows low … high - 1, counted over all segments, as far as there are so many."""
    found = []
    start = 0
    for segment in segments:
        first, last = max(low - start, 0), min(high - start, segment.num_rows)
        if first < last:
            row = segment.first_row + first
            found.append(replace(segment, first_row=row, num_rows=last - first))
        start += segment.num_rows
    return found


def _read_place(place: Sequence[Segment], manifest: Manifest, chooser: random.Random) -> list[_Row]:
    """Read the rows of a place that can be scored, in random order."""
    rows = []
    for segment in place:
        unit = WorkUnit(unit_id="000000", segments=(segment,), num_bytes=0)
        batches = read_pairs(unit, manifest.columns, source=False)
        for index, pair in enumerate(pair for batch in batches for pair in batch.pairs):
            if isinstance(pair, ScorePair) and pair.query.strip():
                rows.append(
                    _Row(
                        segment=replace(segment, first_row=segment.first_row + index, num_rows=1),
                        hash=pair_hash(pair),
                        num_characters=len(pair.query) + len(pair.document),
                    )
                )
    chooser.shuffle(rows)
    return rows


def _score(config: JobConfig, manifest: Manifest, sample: WorkUnit, folder: Store) -> pa.Table:
    """Score the sample with one engine, as the job would: one unit has one worker."""
    config = config.with_options(
        {
            "executor.units_in_flight": 1,
            "executor.max_attempts": 1,
            "output.query_token_logprobs": False,
            "output.source": False,
            "output.pair_hash": False,
        }
    )
    columns = replace(manifest.columns, pass_through=())
    make_worker = functools.partial(
        UnitRunner, config, columns, f"parity-{manifest.fingerprint}", folder.location
    )
    with create_executor(config) as executor:
        for outcome in executor.run([sample], make_worker):
            if isinstance(outcome, UnitFailure):
                raise ParityError(
                    f"engine {config.engine.method} cannot score the parity sample, so nothing was "
                    f"scored: {outcome.cause}"
                )
    return pa.concat_tables(pq.read_table(file.path) for file in folder.committed().values())


def _kendall_tau(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    """Return τ-b (Kendall, Biometrika 1945)."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    signs = [np.sign(values[:, None] - values[None, :]) for values in (a, b)]
    norm = np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    return float((signs[0] * signs[1]).sum() / norm) if norm else None
