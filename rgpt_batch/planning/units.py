"""From row groups to work units.

Units depend on the shards' footers and on `units.*` alone, never on the cluster: the same job
resumes with the same units wherever it runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rgpt_batch.config.options import UnitsConfig
from rgpt_batch.input.inspect import Shard
from rgpt_batch.records import Segment, WorkUnit


def plan_units(shards: Sequence[Shard], config: UnitsConfig) -> list[WorkUnit]:
    """Cut the rows of all shards into units, in input order.

    Row groups above `max_rows` or `max_bytes` are split evenly; small ones are put together, across
    shards too. Every row is in exactly one unit. There is at least one unit, so that an input
    without rows still gives an output with a schema.
    """
    units: list[WorkUnit] = []
    pieces: list[_Piece] = []
    num_rows = num_bytes = 0
    for piece in _pieces(shards, config):
        full = (
            num_rows + piece.segment.num_rows > config.max_rows
            or num_bytes + piece.num_bytes > config.max_bytes
        )
        if pieces and full:
            units.append(_unit(len(units), pieces))
            pieces, num_rows, num_bytes = [], 0, 0
        pieces.append(piece)
        num_rows += piece.segment.num_rows
        num_bytes += piece.num_bytes
    if not pieces and not units:
        pieces = [_Piece(_segment(shards[0], 0, 0), 0)]
    if pieces:
        units.append(_unit(len(units), pieces))
    return units


@dataclass(frozen=True, slots=True)
class _Piece:
    segment: Segment
    num_bytes: int


def _pieces(shards: Iterable[Shard], config: UnitsConfig) -> Iterator[_Piece]:
    for shard in shards:
        first_row = 0
        for group in shard.row_groups:
            rows_in_bytes = config.max_bytes * group.num_rows // max(1, group.num_bytes)
            num_pieces = math.ceil(group.num_rows / max(1, min(config.max_rows, rows_in_bytes)))
            for index in range(num_pieces):
                low = group.num_rows * index // num_pieces
                high = group.num_rows * (index + 1) // num_pieces
                # All rows count alike; the pieces' bytes add up to the row group's.
                num_bytes = (
                    group.num_bytes * high // group.num_rows
                    - group.num_bytes * low // group.num_rows
                )
                yield _Piece(_segment(shard, first_row + low, high - low), num_bytes)
            first_row += group.num_rows


def _segment(shard: Shard, first_row: int, num_rows: int) -> Segment:
    return Segment(path=shard.path, version=shard.version, first_row=first_row, num_rows=num_rows)


def _unit(index: int, pieces: Sequence[_Piece]) -> WorkUnit:
    segments: list[Segment] = []
    for segment in (piece.segment for piece in pieces):
        last = segments[-1] if segments else None
        # Pieces come in order and without gaps, so those of one shard are one run of rows.
        if last and last.path == segment.path:
            segments[-1] = replace(last, num_rows=last.num_rows + segment.num_rows)
        else:
            segments.append(segment)
    return WorkUnit(
        unit_id=f"{index:06d}",
        segments=tuple(segments),
        num_bytes=sum(piece.num_bytes for piece in pieces),
    )
