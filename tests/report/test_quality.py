"""Quality in a report: the numbers of `evaluate`, and the queries that change."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ConfigError
from rgpt_batch.output import open_store
from rgpt_batch.ranking.estimates import Estimate
from rgpt_batch.ranking.evaluate import evaluate
from rgpt_batch.ranking.rank import FirstStage, Fusion, rank
from rgpt_batch.report import gather
from tests.jobs import Scored, fake_config, score
from tests.ranking.files import feeding
from tests.report.jobs import UNITS, write_pairs, write_report
from tests.report.pages import DASH, MINUS, Page

CHANGES = ("Query", "Id", "Baseline", "Run", "Difference")


@pytest.fixture(scope="module")
def page(job: Scored, qrels: Path, bm25: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("page")
    return _page(job, folder, "--qrels", qrels, "--baseline", bm25)


def _page(job: Scored, folder: Path, *options: str | Path) -> Page:
    path = folder / "report.html"
    result = write_report(job.folder, "--to", path, *options)
    assert result.exit_code == 0, result.output
    return Page.read(path)


def _plain(estimate: Estimate) -> str:
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _paired(estimate: Estimate) -> str:
    low, high = _signed(estimate.low), _signed(estimate.high)
    return f"{_signed(estimate.mean)} [{low}, {high}]"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", MINUS)


def test_metrics_are_those_of_evaluate(page: Page, job: Scored, qrels: Path, bm25: Path) -> None:
    expected = evaluate(str(job.folder), str(qrels), baseline=str(bm25)).metrics
    rows = page.rows_below("Metric", "Run", "Baseline", "Difference", "p")
    shown = [result for result in expected if result.metric != "R@100"]
    assert [row[0] for row in rows] == ["nDCG@10", "RR@10", "AP"]
    for row, result in zip(rows, shown, strict=True):
        assert result.baseline and result.difference and result.p_value
        assert row[1] == f"{_plain(result.run)}"
        assert row[2] == f"{_plain(result.baseline)}"
        assert row[3] == _paired(result.difference)
        assert row[4] == f"{result.p_value:.4f}"
    assert expected[0].difference and expected[0].difference.mean != 0


def test_a_difference_never_stands_without_its_interval_and_p(
    page: Page, job: Scored, qrels: Path, bm25: Path
) -> None:
    first = evaluate(str(job.folder), str(qrels), baseline=str(bm25)).metrics[0]
    assert first.difference and first.p_value
    low, high = _signed(first.difference.low), _signed(first.difference.high)
    note = f"{_signed(first.difference.mean)} against the baseline, [{low}, {high}], p "
    assert page.tiles["nDCG@10"] == f"{first.run.mean:.4f}{note}{first.p_value:.4f}"
    drawn = {title.text for title in page.all("title")}
    assert f"difference: {_signed(first.difference.mean)} [{low}, {high}]" in drawn


def test_a_recall_that_a_reranking_cannot_change_is_left_out_and_named(page: Page) -> None:
    assert "R@100 is left out: it is 1.0000 for both, query by query." in page.text
    assert "R@100" not in [row[0] for row in page.all_rows()]


def test_recall_stays_where_the_candidates_differ(
    job: Scored, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    (tmp_path / "short.trec").write_text("".join(bm25.read_text().splitlines(True)[::2]))
    page = _page(job, tmp_path, "--qrels", qrels, "--baseline", tmp_path / "short.trec")
    rows = page.rows_below("Metric", "Run", "Baseline", "Difference", "p")
    assert [row[0] for row in rows] == ["nDCG@10", "RR@10", "R@100", "AP"]
    assert "R@100 is left out" not in page.text


def test_unjudged_documents_in_the_top_ten_are_counted(
    job: Scored, qrels: Path, tmp_path: Path
) -> None:
    judged = tmp_path / "few.tsv"
    judged.write_text("".join(qrels.read_text().splitlines(True)[::4]))
    known = {tuple(line.split()[:3:2]) for line in judged.read_text().splitlines()}
    scored = sorted(job.rows, key=lambda r: (r["score"] or -1e9, r["doc_id"]), reverse=True)
    num_top = num_unjudged = 0
    for query_id in {query_id for query_id, _ in known}:
        top = [r["doc_id"] for r in scored if r["query_id"] == query_id][:10]
        num_top += len(top)
        num_unjudged += sum((query_id, doc_id) not in known for doc_id in top)
    share = f"{100 * num_unjudged / num_top:.1f}%"
    page = _page(job, tmp_path, "--qrels", judged)
    assert page.tiles["Unjudged in the top 10"].startswith(share)
    assert f"Nobody has judged {share} of the first ten documents" in page.text


def test_first_documents_of_losing_queries_come_with_judgements_and_texts(
    page: Page, job: Scored, qrels: Path, bm25: Path
) -> None:
    found = evaluate(str(job.folder), str(qrels), baseline=str(bm25))
    relevance = {
        (q, d): int(r) for q, _, d, r in (line.split() for line in qrels.read_text().splitlines())
    }
    (losses, _) = page.tables_below(*CHANGES)
    tables = page.tables_below("Rank", "Judged", "Document")
    assert len(tables) == 2 * len(losses) > 0
    for loss, run, baseline in zip(losses, tables[::2], tables[1::2], strict=True):
        for rows, top in ((run, found.top), (baseline, found.baseline_top)):
            assert [row[2].split()[0] for row in rows] == list(top[loss[1]][:3])
            for row in rows:
                doc_id, *text = row[2].split()
                judged = relevance[loss[1], doc_id]
                assert row[1] == (f"relevant, {judged}" if judged else "not relevant")
                # The number within its shard: the second one holds documents from 25 on.
                number = int(doc_id[1:])
                assert text[:2] == ["document", str(number if number < 25 else number - 25)]


def test_fusions_with_a_passed_through_score_are_those_of_rank(
    page: Page, job: Scored, qrels: Path, tmp_path: Path
) -> None:
    first_stage = FirstStage(column="bm25")
    metric, difference = "nDCG@10", "Difference to the score alone"
    rows = page.rows_below("Ranking by", metric, difference, "p")
    assert [row[0] for row in rows] == [
        "score alone, as above",
        "bm25 alone",
        "half score, half bm25, both as z-scores",
        "reciprocal rank fusion of both",
    ]
    for row, alpha in zip(rows[2:], (0.5, None), strict=True):
        target = tmp_path / f"{alpha}.trec"
        fusion = Fusion(first_stage=first_stage, alpha=alpha)
        rank(str(job.folder), str(target), top_k=100, run_format="trec", fusion=fusion)
        result = evaluate(str(target), str(qrels), baseline=str(job.folder)).metrics[0]
        assert result.difference
        assert row[1] == _plain(result.run)
        assert row[2] == _paired(result.difference)


def test_quality_of_the_fake_engine_is_called_invented(page: Page) -> None:
    (alarm,) = page.all("div", "alarm")
    assert alarm.text.startswith("Invented scores. The fake engine wrote this output.")
    headings = [heading.text for heading in page.all("h2")]
    assert headings[0] == "Quality of invented scores"
    assert "Scores, invented" in headings


def test_losses_stand_before_gains(page: Page) -> None:
    headings = [heading.text for heading in page.all("h3")]
    first = headings.index("Largest losses in nDCG@10")
    assert first < headings.index("Largest gains in nDCG@10")


def test_every_query_that_changes_is_listed_with_its_text(
    page: Page, job: Scored, qrels: Path, bm25: Path
) -> None:
    found = evaluate(str(job.folder), str(qrels), baseline=str(bm25))
    assert found.baseline_per_query is not None
    differences = dict(
        zip(found.query_ids, found.per_query[:, 0] - found.baseline_per_query[:, 0], strict=True)
    )
    ordered = sorted(differences, key=lambda query_id: differences[query_id])
    losses = [query_id for query_id in ordered if differences[query_id] < 0]
    gains = [query_id for query_id in ordered[::-1] if differences[query_id] > 0]
    assert gains and losses, "the data must show both"
    tables = page.tables_below(*CHANGES)
    assert [[row[1] for row in table] for table in tables] == [losses, gains]
    for row in (row for table in tables for row in table):
        assert row[0] == f"what is number {row[1][1:]}"
        assert row[4] == _signed(differences[row[1]])
    titles = {title.text for title in page.all("title")}
    assert {f"{q}: {_signed(d)}" for q, d in differences.items()} <= titles


def test_queries_are_told_without_texts_when_the_input_is_gone(
    tiny_tokenizer: Path, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    options = (*UNITS, "output.pass_through=[bm25]")
    scored = score(fake_config(tiny_tokenizer, *options), [pairs], tmp_path / "scored")
    for shard in pairs.iterdir():
        shard.unlink()
    path = tmp_path / "r.html"
    result = write_report(scored.folder, "--to", path, "--qrels", qrels, "--baseline", bm25)
    assert result.exit_code == 0, result.output
    assert {row[0] for t in Page.read(path).tables_below(*CHANGES) for row in t} == {DASH}


def test_texts_come_from_the_output_if_it_holds_them(
    tiny_tokenizer: Path, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    options = (*UNITS, "output.pass_through=[query]")
    scored = score(fake_config(tiny_tokenizer, *options), [pairs], tmp_path / "scored")
    for shard in pairs.iterdir():
        shard.unlink()
    path = tmp_path / "r.html"
    result = write_report(scored.folder, "--to", path, "--qrels", qrels, "--baseline", bm25)
    assert result.exit_code == 0, result.output
    rows = [row for table in Page.read(path).tables_below(*CHANGES) for row in table]
    assert rows and all(row[0] == f"what is number {row[1][1:]}" for row in rows)


def test_without_a_baseline_there_are_metrics_alone(
    job: Scored, qrels: Path, tmp_path: Path
) -> None:
    path = tmp_path / "r.html"
    assert (
        write_report(job.folder, "--to", path, "--qrels", qrels, "--metrics", "P@1").exit_code == 0
    )
    page = Page.read(path)
    ((name, value),) = page.rows_below("Metric", "Run")
    expected = evaluate(str(job.folder), str(qrels), metrics="P@1").metrics[0].run
    assert (name, value) == ("P@1", _plain(expected))
    assert "Query by query" not in page.text
    # The first stage's score lies in the output, so what both give together is told all the same.
    fused = page.rows_below("Ranking by", "P@1", "Difference to the score alone", "p")
    assert [row[0] for row in fused][1] == "bm25 alone"


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]),
        pa.array([None, None], pa.float64()),
        pa.array([1.5, float("nan")]),
        pa.array([1.5, float("inf")]),
        pa.array([True, False]),
    ],
    ids=["text", "null", "nan", "infinite", "boolean"],
)
def test_a_column_that_is_only_called_like_a_score_is_not_fused(
    column: pa.Array, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "query_id": ["q", "q"],
            "doc_id": ["a", "b"],
            "query": ["what is it"] * 2,
            "document": ["a river", "a bank"],
            "bm25": column,
        }
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    config = fake_config(tiny_tokenizer, "output.pass_through=[bm25]")
    scored = score(config, [tmp_path / "pairs.parquet"], tmp_path / "scored")
    (tmp_path / "qrels.tsv").write_text("q 0 a 1\n")
    page = _page(scored, tmp_path, "--qrels", tmp_path / "qrels.tsv")
    assert "Together with the first stage" not in page.text


def test_quality_spills_to_the_folder_that_was_given(job: Scored, tmp_path: Path) -> None:
    temp_folder, judged = tmp_path / "temp", tmp_path / "judged"
    temp_folder.mkdir()
    # The judgements are read once the rows are counted: by then the folder holds nothing but
    # what the counting has left open, and is moved away.
    with (
        feeding(judged, "q0 0 d0 1\n", before=lambda: temp_folder.rename(tmp_path / "moved")),
        pytest.raises(ConfigError, match=r"temp: cannot hold temporary files: No such file"),
    ):
        gather(open_store(job.folder), qrels=str(judged), temp_folder=str(temp_folder))
