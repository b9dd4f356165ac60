"""Write the files of search engines, and read what an import made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.importing.import_pairs import ImportOptions, ImportSummary, import_pairs
from rgpt_batch.importing.readers.relations import Source
from rgpt_batch.importing.sources.beir import BeirSource
from rgpt_batch.importing.sources.pairs import PairSource
from rgpt_batch.importing.sources.trec import TrecSource

QUERIES = {"q1": "how tall is the tower", "q2": "who built it"}
DOCUMENTS = {"d1": "The tower is 300 m tall.", "d2": "Eiffel built it.", "d3": "Bread is baked."}
# query_id, doc_id, rank, score
RUN = [("q2", "d2", 1, 9.5), ("q1", "d3", 2, 1.0), ("q1", "d1", 1, 2.5)]


def write_json_lines(path: Path, records: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_tsv(path: Path, rows: Iterable[Sequence[Any]]) -> Path:
    lines = ("\t".join(map(str, row)) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(lines).encode("utf-8"))
    return path


def write_run(path: Path, rows: Iterable[tuple[str, str, int, float]] = RUN) -> Path:
    lines = (f"{query} Q0 {doc} {rank} {score} bm25\n" for query, doc, rank, score in rows)
    path.write_bytes("".join(lines).encode("utf-8"))
    return path


def write_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)
    return path


def trec_source(
    folder: Path,
    *,
    run: Path | None = None,
    queries: Path | None = None,
    corpus: Path | None = None,
) -> TrecSource:
    """A run with its tables; what is not given is written from the constants above."""
    return TrecSource(
        run=str(run or write_run(folder / "run.trec")),
        queries=str(queries or write_tsv(folder / "queries.tsv", QUERIES.items())),
        corpus=str(corpus or write_tsv(folder / "corpus.tsv", DOCUMENTS.items())),
    )


def write_beir(folder: Path) -> Path:
    """Write a BEIR folder whose documents have titles."""
    corpus = [{"_id": i, "title": f"About {i}", "text": text} for i, text in DOCUMENTS.items()]
    write_json_lines(folder / "corpus.jsonl", [{**record, "metadata": {}} for record in corpus])
    queries = ({"_id": i, "text": text} for i, text in QUERIES.items())
    write_json_lines(folder / "queries.jsonl", queries)
    header = ("query-id", "corpus-id", "score")
    write_tsv(folder / "qrels" / "test.tsv", [header, ("q1", "d1", 2), ("q1", "d3", 0)])
    return folder


def beir_source(folder: Path, run: Path | None = None, split: str = "test") -> BeirSource:
    return BeirSource(folder=str(folder), run=str(run) if run else None, split=split)


def pair_source(pairs: Path, queries: Path | None = None, corpus: Path | None = None) -> PairSource:
    return PairSource(
        pairs=str(pairs),
        queries=str(queries) if queries else None,
        corpus=str(corpus) if corpus else None,
    )


def run_import(source: Source, output: Path, **options: Any) -> ImportSummary:
    return import_pairs(source, str(output), ImportOptions(**options))


def read_rows(output: Path) -> list[dict[str, Any]]:
    """All rows, in the order of the shards."""
    tables = [pq.read_table(path) for path in sorted(output.glob("pairs-*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


def import_rows(source: Source, output: Path, **options: Any) -> list[dict[str, Any]]:
    run_import(source, output, **options)
    return read_rows(output)
