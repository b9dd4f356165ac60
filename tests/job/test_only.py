"""Only the best pairs of an earlier ranking are scored: whole jobs with the fake engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch import run_job, verify_output
from rgpt_batch.commands.planning import plan
from rgpt_batch.commands.scoring import score as score_command
from rgpt_batch.errors import ConfigError, ManifestMismatch
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.job.run_job import retry_failed
from rgpt_batch.output import open_store
from rgpt_batch.ranking.rank import rank
from rgpt_batch.ranking.top import TopPairs
from rgpt_batch.records import UnitFailure
from tests.jobs import Scored, fake_config, read_output

NUM_QUERIES, NUM_DOCUMENTS = 6, 15
PAIRS = [(q, d) for q in range(NUM_QUERIES) for d in range(NUM_DOCUMENTS) if (q + d) % 3]
Run = Callable[..., Scored]


def score_of(query: int, document: int) -> float:
    """A number that has nothing to do with the fake engine's; several documents share it."""
    return float((document * 7 + query) % 5)


def best(query: int, top_k: int) -> set[tuple[str, str]]:
    """The top of a query as trec_eval orders it: by score, then by the larger id."""
    found = [(score_of(q, d), f"d{d}") for q, d in PAIRS if q == query]
    return {(str(query), doc_id) for _, doc_id in sorted(found, reverse=True)[:top_k]}


def all_best(top_k: int) -> set[tuple[str, str]]:
    return {pair for query in range(NUM_QUERIES) for pair in best(query, top_k)}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """The input: ids of queries are numbers, as in another file of the ranking they are text."""
    table = {
        "qid": pa.array([q for q, _ in PAIRS], pa.int32()),
        "docno": [f"d{d}" for _, d in PAIRS],
        "query": [f"what is number {q}" for q, _ in PAIRS],
        "text": [f"Document {d} is told " + "again " * (d % 4) for _, d in PAIRS],
    }
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(table), path, row_group_size=11)
    return path


@pytest.fixture
def run(tiny_tokenizer: Path, pairs: Path, tmp_path: Path) -> Run:
    def run_one(
        *overrides: str, name: str = "out", only: TopPairs | None, **options: Any
    ) -> Scored:
        config = fake_config(tiny_tokenizer, "units.max_rows=8", *overrides)
        output = tmp_path / name
        inputs = options.pop("inputs", pairs)
        summary = run_job(config, inputs, output, only=only, quiet=True, **options)
        return Scored(summary=summary, table=read_output(output), folder=output)

    return run_one


def write_ranking(folder: Path, kind: str) -> Path:
    """Write the earlier ranking of all pairs."""
    ranked = sorted(PAIRS, key=lambda p: (p[0], score_of(*p), f"d{p[1]}"), reverse=True)
    if kind == "trec":
        path = folder / "earlier.trec"
        lines = [f"{q} Q0 d{d} 1 {score_of(q, d)} small" for q, d in PAIRS]
        path.write_text("\n".join(lines) + "\n")
        return path
    path = folder / f"{kind}.parquet"
    columns: dict[str, Any] = {
        "query_id": [str(q) for q, _ in ranked],
        "doc_id": [f"d{d}" for _, d in ranked],
        "score": [score_of(*pair) for pair in ranked],
    }
    if kind == "ranking":
        places = [sum(p[0] == q for p in ranked[:i]) + 1 for i, (q, _) in enumerate(ranked)]
        columns |= {"rank": places, "score": [0.0] * len(ranked)}
    else:
        columns["rejection"] = pa.nulls(len(ranked), pa.string())
    pq.write_table(pa.table(columns), path)
    return path


def chosen(scored: Scored) -> set[tuple[str, str]]:
    return set(zip(scored.column("query_id"), scored.column("doc_id"), strict=True))


@pytest.mark.parametrize("kind", ["trec", "ranking", "scored"])
@pytest.mark.parametrize("order", ["input", "document", "auto"])
def test_the_top_pairs_are_scored_and_no_others(
    run: Run, tmp_path: Path, kind: str, order: str
) -> None:
    ranking = write_ranking(tmp_path, kind)
    whole = run("output.source=true", only=None, name="whole")
    scored = run(f"units.order={order}", only=TopPairs(ranking, 3))
    assert chosen(scored) == all_best(3)
    assert scored.summary.num_rows == scored.table.num_rows == 3 * NUM_QUERIES
    # Each has the score of a job on all pairs, and says where it came from.
    rows = {(row["source_file"], row["source_row"]): row for row in whole.rows}
    assert all(rows[row["source_file"], row["source_row"]] == row for row in scored.rows)
    if order == "input":
        assert scored.column("source_row") == sorted(scored.column("source_row"))
    assert verify_output(scored.folder).problems == ()
    assert scored.summary.exit_code == 0


def test_an_output_folder_is_a_ranking(run: Run) -> None:
    whole = run(only=None, name="whole")
    scored = run(only=TopPairs(whole.folder, 4))
    expected = set()
    for query in map(str, range(NUM_QUERIES)):
        rows = [row for row in whole.rows if row["query_id"] == query]
        rows.sort(key=lambda row: (row["score"], row["doc_id"]), reverse=True)
        expected |= {(query, row["doc_id"]) for row in rows[:4]}
    assert chosen(scored) == expected


def test_a_cascade_ranks_all_pairs(run: Run, tmp_path: Path) -> None:
    earlier = write_ranking(tmp_path, "trec")
    scored = run(only=TopPairs(earlier, 3))
    rank(scored.folder, tmp_path / "out.parquet", top_k=1000, below=earlier)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for query in range(NUM_QUERIES):
        found = [row["doc_id"] for row in rows if row["query_id"] == str(query)]
        earlier_order = sorted(
            ((score_of(q, d), f"d{d}") for q, d in PAIRS if q == query), reverse=True
        )
        assert {(str(query), doc_id) for doc_id in found[:3]} == best(query, 3)
        assert found[3:] == [doc_id for _, doc_id in earlier_order][3:]


def test_the_ranking_is_part_of_the_job(run: Run, tmp_path: Path) -> None:
    ranking = write_ranking(tmp_path, "trec")
    first = run(only=TopPairs(ranking, 3))
    again = run(only=TopPairs(ranking, 3))
    assert (again.summary.num_rows_scored, again.summary.exit_code) == (0, 0)
    with pytest.raises(ManifestMismatch, match=r"--only: was the top 3 .*, is the top 4"):
        run(only=TopPairs(ranking, 4))
    with pytest.raises(ManifestMismatch, match="--only: was the top 3 of a ranking, is all pairs"):
        run(only=None)
    ranking.write_text(ranking.read_text().replace("small", "other"))
    with pytest.raises(ManifestMismatch, match=r"--only .*earlier\.trec: was "):
        run(only=TopPairs(ranking, 3))
    assert read_output(first.folder).equals(first.table)


def test_failed_units_are_scored_again_from_another_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ranking(tmp_path, "trec")
    monkeypatch.chdir(tmp_path)
    first = run(only=TopPairs("earlier.trec", 3))
    num_lost = pq.read_metadata(first.folder / "part-000001.parquet").num_rows
    (first.folder / "part-000001.parquet").unlink()
    store = open_store(str(first.folder))
    store.add_failure(UnitFailure(unit_id="000001", num_rows=8, num_attempts=3, cause="x"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    summary = retry_failed(first.folder, quiet=True)
    assert (summary.exit_code, summary.num_rows_scored) == (0, num_lost)
    assert read_output(first.folder).equals(first.table)


def test_scores_of_a_job_on_all_pairs_are_reused(run: Run, tmp_path: Path) -> None:
    whole = run(only=None, name="whole")
    ranking = write_ranking(tmp_path, "trec")
    scored = run(only=TopPairs(ranking, 3), reuse=whole.folder)
    assert scored.summary.num_reused == 3 * NUM_QUERIES
    assert chosen(scored) == all_best(3)


def test_candidates_of_tables_are_chosen_too(run: Run, pairs: Path, tmp_path: Path) -> None:
    table = pq.read_table(pairs)
    texts = {}
    for name, key, text in (("queries", "qid", "query"), ("documents", "docno", "text")):
        texts[name] = str(tmp_path / f"{name}.parquet")
        unique = table.group_by(key).aggregate([(text, "min")])
        pq.write_table(unique.rename_columns([key, "text"]), texts[name])
    pq.write_table(table.select(["qid", "docno"]), tmp_path / "candidates.parquet")
    ranking = write_ranking(tmp_path, "trec")
    options: dict[str, Any] = {
        "tables": TextTables(**texts),
        "inputs": tmp_path / "candidates.parquet",
    }
    scored = run(only=TopPairs(ranking, 3), **options)
    assert chosen(scored) == all_best(3)
    expected = run(only=TopPairs(ranking, 3), name="plain")
    scores = [
        {(row["query_id"], row["doc_id"]): row["score"] for row in found.rows}
        for found in (scored, expected)
    ]
    assert scores[0] == scores[1]
    with pytest.raises(ManifestMismatch, match="--only: was the top 3"):
        run(only=TopPairs(ranking, 2), **options)


def test_a_ranking_of_other_ids_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.trec"
    path.write_text("1 Q0 x1 1 2.0 t\n")
    with pytest.raises(ConfigError, match=r"other\.trec: holds none of the input's pairs"):
        run(only=TopPairs(path, 3))
    assert not list((tmp_path / "out").glob("_rgpt/plan-*"))


def test_what_does_not_go_with_a_choice_is_refused(
    run: Run, tiny_tokenizer: Path, pairs: Path, tmp_path: Path
) -> None:
    ranking = write_ranking(tmp_path, "trec")
    with pytest.raises(ConfigError, match=r"output\.order=input and --order document do not go"):
        run("units.order=document", "output.order=input", only=TopPairs(ranking, 3))
    with pytest.raises(ConfigError, match="--only needs an output folder on a file system"):
        run_job(fake_config(tiny_tokenizer), pairs, "s3://b/out", only=TopPairs(ranking, 3))
    with pytest.raises(ConfigError, match="top_k: expected a whole number from 1"):
        TopPairs(ranking, 0)
    with pytest.raises(ConfigError, match=r"nowhere\.trec"):
        run(only=TopPairs(tmp_path / "nowhere.trec", 3))


def test_the_commands_take_a_ranking(pairs: Path, tiny_tokenizer: Path, tmp_path: Path) -> None:
    ranking = write_ranking(tmp_path, "trec")
    command = ["-i", pairs, "--output", tmp_path / "out", "--model", tiny_tokenizer, "--quiet"]
    command += ["-o", "engine.method=fake", "--executor", "local", "--only", ranking]
    shown = CliRunner().invoke(score_command, list(map(str, command)))
    assert shown.exit_code == 2 and "--only and --top-k need each other" in shown.output
    command += ["--top-k", "3"]
    shown = CliRunner().invoke(plan, list(map(str, command)))
    assert shown.exit_code == 0, shown.output
    assert f"1 shard, {3 * NUM_QUERIES} rows" in shown.output
    assert not (tmp_path / "out").exists()
    shown = CliRunner().invoke(score_command, list(map(str, command)))
    assert shown.exit_code == 0, shown.output
    assert read_output(tmp_path / "out").num_rows == 3 * NUM_QUERIES
    success = json.loads((tmp_path / "out" / "_SUCCESS").read_bytes())
    assert success["num_rows"] == 3 * NUM_QUERIES


def test_a_ranking_above_a_link_is_the_one_that_the_system_finds(tmp_path: Path) -> None:
    for folder in ("far/deep", "near"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("far", "near"):
        (tmp_path / folder / "run.trec").write_text(f"q Q0 {folder} 1 1.0 small\n")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "deep")
    assert "far" in Path(TopPairs(f"{tmp_path}/near/link/../run.trec", 1).path).read_text()


def test_a_folder_or_pattern_above_a_link_is_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("far/deep", "far/small", "near/small"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("far", "near"):
        table = pa.table({"query_id": ["q"], "doc_id": [folder], "score": [1.0]})
        pq.write_table(table, tmp_path / folder / "small" / "x.parquet")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "deep")
    monkeypatch.chdir(tmp_path / "near")
    expected = str(tmp_path / "far" / "small" / "x.parquet")
    for ranking in ("link/../small", "link/../small/", "link/../sm*/x.parquet"):
        (file,) = TopPairs(ranking, 1).facts().files
        assert Path(file.path).samefile(expected)
    assert TopPairs("./small/", 1).path == f"{tmp_path}/near/small"
