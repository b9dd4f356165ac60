"""Random rows of an output, scored again with the float32 reference."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from rgpt_batch.checks.reference import Deviation, Reference, compared_column, deviation
from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import WorkUnit
from rgpt_batch.storage.files import open_source


def choose_rows(
    units: list[WorkUnit], num_rows: int, seed: int
) -> dict[str, tuple[WorkUnit, set[int]]]:
    """Choose rows; returns unit id → unit and row indices in it."""
    chooser = random.Random(seed)
    weights = [unit.num_rows for unit in units]
    rows: dict[str, tuple[WorkUnit, set[int]]] = {}
    for unit in chooser.choices(units, weights, k=num_rows) if sum(weights) else []:
        rows.setdefault(unit.unit_id, (unit, set()))[1].add(chooser.randrange(unit.num_rows))
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Rows of one file, and how far they are from the reference's."""

    path: str
    rows: list[int]
    is_scored: list[bool]
    column: str
    deviation: Deviation

    def problems(self, tolerance: float) -> Iterator[str]:
        """Say which rows are further away than this, or rejected by one of the two."""
        found = self.deviation
        for place in found.rejected_by_one:
            must = "rejected" if self.is_scored[place] else "scored"
            yield f"{self.path}: row {self.rows[place]} must be {must}."
        for place in found.too_far(tolerance):
            yield (
                f"{self.path}: row {self.rows[found.rows[place]]} has {self.column} "
                f"{found.found[place]}, but the float32 reference gives "
                f"{found.expected[place]:.6f} (tolerance {tolerance:g})."
            )


def rescore(
    config: JobConfig,
    manifest: Manifest,
    files: dict[str, CommittedFile],
    sampled: dict[str, tuple[WorkUnit, set[int]]],
    report: Callable[[str], None],
) -> list[Compared]:
    """Score the sampled rows with the reference."""
    num_rows, num_done = sum(len(chosen) for _, chosen in sampled.values()), 0
    report("loading the float32 reference")
    reference = Reference(config)
    column = compared_column(manifest.identity)
    compared = []
    for unit_id, (unit, chosen) in sampled.items():
        path = files[unit_id].path
        rows = sorted(chosen)
        batches = read_pairs(unit, manifest.columns, source=False)
        pairs = [pair for batch in batches for pair in batch.pairs]
        written = pq.read_table(open_source(path), columns=[column])[column].take(rows)
        expected: list[float | None] = []
        for row in rows:
            expected += reference.values([pairs[row]], column)
            num_done += 1
            report(f"scored {num_done:,} of {num_rows:,} sampled rows again")
        found = deviation(expected, written.to_pylist())
        compared.append(
            Compared(
                path=path,
                rows=rows,
                is_scored=written.is_valid().to_pylist(),
                column=column,
                deviation=found,
            )
        )
    reference.close()
    return compared
