"""Show what a scored demo looks like: where it lies, its first rows, and the best per query.

python demo/show.py out/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

_DEMO = Path(__file__).parent
_NUM_ROWS = 5
_NUM_TOP = 3
_NUM_CHARS = 72


def main(output: str) -> None:
    """Print the parts of the scored output that a reader wants to see first."""
    scored = ds.dataset(output, format="parquet").to_table()
    texts = pq.read_table(_DEMO / "pairs", columns=["query_id", "doc_id", "query", "document"])
    grades = {
        (query_id, doc_id): grade
        for query_id, _, doc_id, grade in (
            line.split("\t") for line in (_DEMO / "qrels.tsv").read_text().splitlines()
        )
    }
    print(f"\nScored Parquet lies in {Path(output).absolute()}; its first rows:\n")
    columns = ["query_id", "doc_id", "score", "sum_logprob", "num_query_tokens", "rejection"]
    _print_rows(scored.select(columns).slice(0, _NUM_ROWS))

    print(f"\nTop {_NUM_TOP} per query (mean logprob, judged grade 0-3, document):")
    joined = scored.join(texts, keys=["query_id", "doc_id"]).sort_by(
        [("query_id", "ascending"), ("score", "descending")]
    )
    shown: dict[str, int] = {}
    for row in joined.to_pylist():
        rank = shown.get(row["query_id"], 0)
        shown[row["query_id"]] = rank + 1
        if rank == 0:
            print(f"\n{row['query_id']}  {row['query']}")
        if rank < _NUM_TOP:
            grade = grades[row["query_id"], row["doc_id"]]
            snippet = " ".join(row["document"].split())[:_NUM_CHARS]
            print(f"     {row['score']:7.3f}  {grade}  {row['doc_id']}  {snippet}")


def _print_rows(table: pa.Table) -> None:
    names = table.column_names
    print("  ".join(f"{name:<16}" for name in names))
    for row in table.to_pylist():
        cells = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()]
        print("  ".join(f"{cell:<16}" for cell in cells))


if __name__ == "__main__":
    main(sys.argv[1])
