"""Small scored files, and trec_eval's own view of a run."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytrec_eval

from rgpt_batch.output import open_store
from rgpt_batch.output.score_file import SCORE_SCHEMA
from rgpt_batch.output.success import OutputFile, Success

Row = tuple[str | None, str | None, float | None]


def write_scored(
    path: Path, rows: Sequence[Row], extra: Mapping[str, Sequence[Any]] | None = None
) -> Path:
    """Write a file as `score` does; a row without a score is a rejected one."""
    values: dict[str, list[Any]] = {name: [None] * len(rows) for name in SCORE_SCHEMA.names}
    values["query_id"] = [row[0] for row in rows]
    values["doc_id"] = [row[1] for row in rows]
    values["score"] = [row[2] for row in rows]
    values["rejection"] = ["EMPTY_QUERY" if row[2] is None else None for row in rows]
    table = pa.table(values, schema=SCORE_SCHEMA)
    for name, column in (extra or {}).items():
        table = table.append_column(name, pa.array(column))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_success(folder: Path) -> None:
    """Declare that the files of an output folder are all of its job."""
    files = {
        part.stem.removeprefix("part-"): OutputFile(
            name=part.name,
            size=part.stat().st_size,
            sha256=hashlib.sha256(part.read_bytes()).hexdigest(),
            num_rows=pq.read_metadata(part).num_rows,
            num_rejected={},
            fingerprint="f" * 16,
        )
        for part in folder.glob("part-*.parquet")
    }
    num_rows = sum(file.num_rows for file in files.values())
    open_store(str(folder)).write_success(
        Success(
            fingerprint="f" * 16,
            num_units=len(files),
            num_rows=num_rows,
            num_rejected={},
            files=files,
        )
    )


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def read_order(path: Path) -> dict[str, list[str]]:
    """Return query_id → doc_ids in the order of a ranking, Parquet or TREC."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        columns = (table[name].to_pylist() for name in ("query_id", "doc_id"))
        pairs = list(zip(*columns, strict=True))
    else:
        pairs = [(line.split()[0], line.split()[2]) for line in path.open()]
    order: dict[str, list[str]] = {}
    for query_id, doc_id in pairs:
        order.setdefault(query_id, []).append(doc_id)
    return order


def read_scores(path: Path) -> dict[str, dict[str, float]]:
    """Return a TREC run as pytrec_eval takes it."""
    run: dict[str, dict[str, float]] = {}
    for line in path.open():
        query_id, _, doc_id, _, score, _ = line.split()
        run.setdefault(query_id, {})[doc_id] = float(score)
    return run


def trec_eval_order(scores: Mapping[str, float]) -> list[str]:
    """Return the order that trec_eval gives the documents of one query.

    Each document in turn is the only relevant one, and the reciprocal rank tells its place.
    """
    ranks = {}
    for doc_id in scores:
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {doc_id: 1}}, {"recip_rank"})
        ranks[doc_id] = 1 / evaluator.evaluate({"q": dict(scores)})["q"]["recip_rank"]
    return sorted(ranks, key=ranks.__getitem__)


@contextmanager
def feeding(pipe: Path, text: str, before: Callable[[], object]) -> Iterator[None]:
    """Make a pipe; whoever opens it gets the text, after something else was done."""

    def feed() -> None:
        with pipe.open("w") as stream:
            before()
            stream.write(text)

    os.mkfifo(pipe)
    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    yield
    feeder.join(timeout=60)
    assert not feeder.is_alive(), "nobody has read the pipe"
