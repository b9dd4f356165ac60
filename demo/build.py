r"""Build the demo Parquet files and qrels.tsv from source.jsonl: ``python demo/build.py``.

BM25 is computed over the distinct documents of the demo itself, with Lucene's formula:
idf = ln(1 + (N - df + 0.5) / (df + 0.5)), k1 = 0.9, b = 0.4, lower-cased ``\w+`` tokens,
no stemming and no stop words. The output depends on source.jsonl only.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
K1, B = 0.9, 0.4
FILE_QUERIES, GROUP_QUERIES = 8, 4  # queries per Parquet file and per row group
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("query_id", "query", "doc_id", "document")]
    + [("bm25_score", pa.float64()), ("bm25_rank", pa.int32())]
)


@dataclass(frozen=True)
class Query:
    """One query with the relevance grade of each of its candidates."""

    query_id: str
    text: str
    grades: dict[str, int]


def load(path: Path) -> tuple[list[Query], dict[str, str]]:
    """Read the queries, in order of query_id, and the distinct documents by doc_id."""
    queries: list[Query] = []
    documents: dict[str, str] = {}
    for record in map(json.loads, path.read_text(encoding="utf-8").strip().split("\n")):
        grades: dict[str, int] = {}
        for candidate in record["candidates"]:
            doc_id, text = candidate["doc_id"], candidate["document"]
            if doc_id in grades:
                raise ValueError(f"{record['query_id']}: {doc_id} is listed twice")
            if documents.setdefault(doc_id, text) != text:
                raise ValueError(f"{doc_id} has two different texts")
            grades[doc_id] = candidate["grade"]
        queries.append(Query(record["query_id"], record["query"], grades))
    return sorted(queries, key=lambda query: query.query_id), documents


def tokenize(text: str) -> list[str]:
    """Split a text into lower-cased word tokens."""
    return re.findall(r"\w+", text.lower())


class Bm25:
    """BM25 as Lucene computes it, with exact document lengths."""

    def __init__(self, documents: dict[str, str]) -> None:
        self.counts = {doc_id: Counter(tokenize(text)) for doc_id, text in documents.items()}
        self.lengths = {doc_id: counts.total() for doc_id, counts in self.counts.items()}
        self.mean_length = sum(self.lengths.values()) / len(self.lengths)
        self.df = Counter(token for counts in self.counts.values() for token in counts)

    def score(self, query: str, doc_id: str) -> float:
        """Score one document; a query token that occurs twice counts twice."""
        norm = K1 * (1 - B + B * self.lengths[doc_id] / self.mean_length)
        total = 0.0
        for token in tokenize(query):
            tf, df = self.counts[doc_id][token], self.df[token]
            idf = math.log(1 + (len(self.counts) - df + 0.5) / (df + 0.5))
            total += idf * tf / (tf + norm)
        return round(total, 6)

    def rank(self, query: Query) -> list[tuple[str, float]]:
        """Score the candidates, best first; ties go to the smaller doc_id."""
        scored = [(doc_id, self.score(query.text, doc_id)) for doc_id in query.grades]
        return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def ndcg(gains: list[int], k: int = 10) -> float:
    """Compute nDCG at k with linear gain, as in trec_eval; ``gains`` are in ranked order."""
    discounts = [1 / math.log2(rank + 1) for rank in range(1, k + 1)]
    ideal = sum(g * d for g, d in zip(sorted(gains, reverse=True), discounts, strict=False))
    return sum(g * d for g, d in zip(gains, discounts, strict=False)) / ideal


def main() -> None:
    """Write pairs/*.parquet and qrels.tsv and print the counts and BM25's nDCG@10."""
    queries, documents = load(HERE / "source.jsonl")
    bm25 = Bm25(documents)
    tables: list[pa.Table] = []
    qrels: list[str] = []
    ndcgs: list[float] = []
    for query in queries:
        ranked = bm25.rank(query)
        rows = [
            (query.query_id, query.text, doc_id, documents[doc_id], score, rank)
            for rank, (doc_id, score) in enumerate(ranked, start=1)
        ]
        tables.append(pa.table(list(zip(*rows, strict=True)), schema=SCHEMA))
        qrels += [f"{query.query_id}\t0\t{d}\t{g}\n" for d, g in sorted(query.grades.items())]
        ndcgs.append(ndcg([query.grades[doc_id] for doc_id, _ in ranked]))

    (HERE / "pairs").mkdir(exist_ok=True)
    for number, first in enumerate(range(0, len(tables), FILE_QUERIES)):
        part = tables[first : first + FILE_QUERIES]
        path = HERE / "pairs" / f"pairs-{number:02d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for start in range(0, len(part), GROUP_QUERIES):
                writer.write_table(pa.concat_tables(part[start : start + GROUP_QUERIES]))
    (HERE / "qrels.tsv").write_text("".join(qrels), encoding="utf-8", newline="\n")
    print(f"{len(queries)} queries, {len(documents)} documents, {len(qrels)} pairs")
    print(f"BM25 nDCG@10: {sum(ndcgs) / len(ndcgs):.4f}")


if __name__ == "__main__":
    main()
