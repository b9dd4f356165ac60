"""`benchmarks/quality.py` on sets of a few made-up pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.quality import find_set, to_markdown
from rgpt_batch.importing.readers.trec import read_qrels
from tests.commands.start import run


@pytest.fixture
def sets(tmp_path: Path, write_pairs: Callable[..., Path]) -> Path:
    """Folder of the sets one and two; BM25 finds the relevant document first for half the queries.

    write_pairs makes seven queries q0 to q6, and document i belongs to query i % 7.
    """
    for name in ("one", "two"):
        write_pairs(
            28, f"sets/{name}/pairs.parquet", {"bm25_score": [float(28 - i) for i in range(28)]}
        )
        # First of four for q0 to q3, last of four for the others.
        judged = {f"q{i}": f"d{i if i < 4 else i + 21}" for i in range(7)}
        lines = [f"{query_id}\t0\t{doc_id}\t1\n" for query_id, doc_id in judged.items()]
        (tmp_path / "sets" / name / "qrels.tsv").write_text("".join(lines))
    return tmp_path / "sets"


def measure(sets: Path, model: Path, *options: str) -> subprocess.CompletedProcess[str]:
    work, results = sets.parent / "work", sets.parent / "results"
    options += ("--work", str(work), "--results", str(results))
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.quality", sets, *options]
    return run([*command, "--model", model, "-o", "engine.method=fake"])


def rows(sets: Path) -> dict[str, list[list[str]]]:
    """The table's cells by set, without set and header."""
    (file,) = (sets.parent / "results").glob("*-quality.md")
    return parse(file.read_text())


def parse(table: str) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    name = ""
    for line in table.splitlines():
        if line.startswith("| ") and not line.startswith("| set"):
            first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            name = first or name
            found.setdefault(name, []).append(cells)
    return found


def test_a_set_is_measured_and_joins_the_table_of_those_that_were(
    sets: Path, tiny_llama: Path
) -> None:
    done = measure(sets, tiny_llama, "--set", "two")
    assert done.returncode == 0, done.stderr
    bm25, *others, best = rows(sets)["two"]
    # nDCG of rank 1 is 1, that of rank 4 is 1 / log2(5).
    ndcg, reciprocal_rank = (4 + 3 / 2.321928) / 7, (4 + 3 / 4) / 7
    assert bm25[0] == "BM25"
    assert bm25[1].startswith(f"{ndcg:.4f} [")
    assert bm25[2:] == [f"{reciprocal_rank:.4f}", "", ""]
    assert [row[0] for row in others] == ["query likelihood", "interpolated, 0.5", "fused by rank"]
    assert best[:3] == ["best order", "1.0000 [1.0000, 1.0000]", "1.0000"]
    assert best[3].startswith(f"{1 - ndcg:+.4f} [")
    assert "7 queries, 28 pairs, 0 documents cut, 0 rejected" in done.stdout

    result = json.loads((sets.parent / "work" / "two" / "result.json").read_text())
    assert list(parse(to_markdown({"one": result, "two": result}))) == ["one", "two"]


def test_a_sample_of_queries_is_the_same_every_time(sets: Path, tmp_path: Path) -> None:
    sample = find_set(sets / "one", tmp_path / "work", 3)
    # The first three by the SHA-256 of their ids, as sha256sum prints them.
    expected = ["q0", "q4", "q5"]
    assert sorted(read_qrels(str(sample.qrels))) == expected
    assert sorted(set(pq.read_table(sample.pairs)["query_id"].to_pylist())) == expected
    # A file that is written anew would be another job's input.
    written = sample.pairs.stat().st_mtime_ns
    assert find_set(sets / "one", tmp_path / "work", 3) == sample
    assert sample.pairs.stat().st_mtime_ns == written


def test_sets_that_do_not_exist_are_named(sets: Path) -> None:
    with pytest.raises(SystemExit, match=r"three/pairs\.parquet: is missing"):
        find_set(sets / "three", sets.parent / "work", None)
