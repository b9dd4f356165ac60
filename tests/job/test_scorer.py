"""Pairs in memory get the scores, the columns and the rejections of a job."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch import ScoredPair, Scorer, run_job
from rgpt_batch.errors import ShardError
from rgpt_batch.output.score_file import PAIR_HASH
from tests.commands.start import rgpt_batch, run
from tests.conftest import ROOT
from tests.jobs import fake_config

TABLE = pa.table(
    {
        "qid": pa.chunked_array([["q1", "q1"], ["q2", None]]),
        "docno": pa.chunked_array([[7, 8], [9, 10]]),
        "query": pa.chunked_array([["a baby", "  "], ["walks", "late"]]),
        "text": pa.chunked_array([["Most babies walk", "x"], [None, "at 13 months"]]),
        "rank": pa.chunked_array([[1, 2], [3, 4]]),
    }
)


def test_a_table_gets_the_rows_of_a_job(tiny_tokenizer: Path, tmp_path: Path) -> None:
    config = fake_config(
        tiny_tokenizer, "output.pass_through=[rank]", "output.query_token_logprobs=true"
    )
    pq.write_table(TABLE, tmp_path / "pairs.parquet")
    run_job(config, tmp_path / "pairs.parquet", tmp_path / "scored", quiet=True)
    (part,) = (tmp_path / "scored").glob("part-*.parquet")
    expected = pq.read_table(part).drop_columns([PAIR_HASH]).replace_schema_metadata()
    with Scorer(config) as scorer:
        assert scorer.score_table(TABLE).equals(expected)
        assert scorer.score_table(TABLE.slice(0, 0)).equals(expected.slice(0, 0))
        with pytest.raises(ShardError, match="table: no document column"):
            scorer(TABLE.drop_columns(["text"]))


def test_pairs_get_their_score_or_the_reason_why_not(tiny_tokenizer: Path) -> None:
    with Scorer(fake_config(tiny_tokenizer)) as scorer:
        scored, rejected = scorer.score([("a baby", "Most babies walk"), (" ", "x")])
        assert scorer.score([]) == []
    assert rejected == ScoredPair(score=None, rejection="EMPTY_QUERY", query_tokens=())
    logprobs = [logprob for _, logprob in scored.query_tokens]
    assert scored.score == pytest.approx(sum(logprobs) / len(logprobs))
    assert "".join(token for token, _ in scored.query_tokens) == "a baby"


def test_threads_share_a_scorer(tiny_tokenizer: Path) -> None:
    pairs = [(f"query {i}", f"document {i}") for i in range(20)]
    found: list[list[ScoredPair]] = []
    with Scorer(fake_config(tiny_tokenizer)) as scorer:
        expected = scorer.score(pairs)
        threads = [
            threading.Thread(target=lambda: found.append(scorer.score(pairs))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 4


@pytest.mark.ray
def test_ray_data_takes_it_as_an_actor_class(tiny_tokenizer: Path, tmp_path: Path) -> None:
    # In a process of its own: Ray Data starts a cluster there. Costs some 20 s.
    config = fake_config(tiny_tokenizer)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    pq.write_table(TABLE, tmp_path / "pairs.parquet")
    code = f"""
import ray
from rgpt_batch import JobConfig, Scorer
ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
config = JobConfig.model_validate_json(open({str(tmp_path / "config.json")!r}).read())
rows = ray.data.read_parquet({str(tmp_path / "pairs.parquet")!r}).map_batches(
    Scorer, fn_constructor_args=(config,), batch_format="pyarrow", concurrency=1
)
print([row["rejection"] for row in sorted(rows.take_all(), key=lambda row: row["doc_id"])])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    # doc_id 10 sorts before 7 as text.
    assert done.stdout.splitlines()[-1:] == ["[None, None, 'EMPTY_QUERY', 'NULL_DOCUMENT']"], (
        done.stderr
    )


def _try(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return run(rgpt_batch("try", *arguments, "-o", "engine.method=fake"), text=text)


def test_the_command_shows_the_best_document_first(tiny_tokenizer: Path) -> None:
    model = ("--model", str(tiny_tokenizer))
    done = _try("a baby", "Most babies walk", "-", *model, "--json", text="at 13 months\n\n")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert {answer["document"] for answer in answers} == {"Most babies walk", "at 13 months"}
    assert answers[0]["score"] > answers[1]["score"]
    shown = _try("a baby", "Most babies walk", *model)
    assert shown.stdout.startswith(f"{answers[0]['score']:.4f}  ") or shown.stdout.startswith(
        f"{answers[1]['score']:.4f}  "
    )
    assert shown.stdout.count("\n") == 1 + len(answers[0]["query_tokens"])


def test_the_command_names_what_it_cannot_score(tiny_tokenizer: Path) -> None:
    done = _try(" ", "Most babies walk", "--model", str(tiny_tokenizer))
    assert (done.returncode, done.stdout) == (3, "EMPTY_QUERY  Most babies walk\n")
