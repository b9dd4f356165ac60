"""Only the best pairs were scored again; the others of the earlier ranking follow below."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch.commands.ranking import rank as rank_command
from rgpt_batch.ranking.rank import FirstStage, Fusion, rank
from tests.ranking.files import read_order, write_scored

# d0 is the best; q2 was not scored again at all.
EARLIER = [
    *((f"q1 Q0 d{i} {i + 1} {10.0 - i} small") for i in range(6)),
    *((f"q2 Q0 d{i} {i + 1} {10.0 - i} small") for i in range(3)),
]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "earlier.trec"
    path.write_text("\n".join(EARLIER) + "\n")
    return path


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """The top 4 of q1, scored again; two of them are rejected."""
    rows = [("q1", "d0", -3.0), ("q1", "d1", None), ("q1", "d2", -1.0), ("q1", "d3", None)]
    return write_scored(tmp_path / "scored.parquet", rows)


def ranked(path: Path) -> list[tuple[str, str, int, float | None]]:
    rows = pq.read_table(path).to_pylist()
    return [(row["query_id"], row["doc_id"], row["rank"], row["score"]) for row in rows]


def test_pairs_that_were_not_scored_keep_their_order_below(
    scored: Path, earlier: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    summary = rank(scored, output, top_k=1000, below=earlier)
    assert ranked(output) == [
        ("q1", "d2", 1, -1.0),
        ("q1", "d0", 2, -3.0),
        # Rejected pairs have no new score, so they keep their order, too.
        *(("q1", f"d{i}", rank_, None) for rank_, i in enumerate((1, 3, 4, 5), 3)),
        *(("q2", f"d{i}", i + 1, None) for i in range(3)),
    ]
    assert (summary.num_below, summary.num_pairs, summary.num_ranked) == (5, 4, 9)


def test_rejected_pairs_are_left_out_of_both(scored: Path, earlier: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    rank(scored, output, top_k=1000, below=earlier, keep_rejected=False)
    assert [row[1] for row in ranked(output) if row[0] == "q1"] == ["d2", "d0", "d4", "d5"]


def test_top_k_counts_both(scored: Path, earlier: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    rank(scored, output, top_k=5, below=earlier)
    assert [row[1] for row in ranked(output)] == ["d2", "d0", "d1", "d3", "d4", "d0", "d1", "d2"]


def test_equal_scores_are_ordered_by_doc_id_whatever_the_earlier_ranking_says(
    earlier: Path, tmp_path: Path
) -> None:
    scored = write_scored(tmp_path / "s.parquet", [("q1", f"d{i}", -1.0) for i in range(4)])
    output = tmp_path / "out.parquet"
    rank(scored, output, top_k=1000, below=earlier)
    assert [r[1] for r in ranked(output) if r[0] == "q1"] == ["d3", "d2", "d1", "d0", "d4", "d5"]


@pytest.mark.parametrize("kind", ["ranking", "scored"])
def test_the_earlier_ranking_may_be_parquet(scored: Path, tmp_path: Path, kind: str) -> None:
    earlier = tmp_path / "earlier.parquet"
    if kind == "scored":
        write_scored(earlier, [("q1", f"d{i}", -float(i)) for i in range(6)])
    else:
        columns = {"query_id": ["q1"] * 6, "doc_id": [f"d{i}" for i in range(6)]}
        # Its scores say nothing: it is ordered by rank.
        pq.write_table(pa.table({**columns, "rank": range(1, 7), "score": [0.0] * 6}), earlier)
    output = tmp_path / "out.parquet"
    rank(scored, output, top_k=1000, below=earlier)
    assert [row[1] for row in ranked(output)] == ["d2", "d0", "d1", "d3", "d4", "d5"]


def test_trec_runs_rank_them_below_too(scored: Path, earlier: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.trec"
    result = CliRunner().invoke(
        rank_command, [str(scored), "--output", str(output), "--below", str(earlier)]
    )
    assert result.exit_code == 0, result.output
    assert "5 pairs that were not scored" in result.output
    assert read_order(output)["q1"] == ["d2", "d0", "d1", "d3", "d4", "d5"]


def test_below_goes_with_a_fusion(scored: Path, earlier: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    fusion = Fusion(first_stage=FirstStage(file=earlier), alpha=0.0)
    rank(scored, output, top_k=1000, below=earlier, fusion=fusion)
    assert [r[1] for r in ranked(output) if r[0] == "q1"] == ["d0", "d2", "d1", "d3", "d4", "d5"]
    names = pq.read_schema(output).names
    assert names == ["query_id", "doc_id", "rank", "score", "ql_score", "first_stage_score"]
