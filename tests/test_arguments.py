"""Calls from Python: paths of any kind, and errors that name the argument."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rgpt_batch import load_config, run_job, verify_output
from rgpt_batch.config.arguments import as_location, as_locations, check_choice
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.import_pairs import ImportOptions, import_pairs
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.importing.sources.trec import TrecSource
from rgpt_batch.job.run_job import retry_failed
from rgpt_batch.ranking.compare import compare
from rgpt_batch.ranking.evaluate import evaluate
from rgpt_batch.ranking.rank import rank
from tests.jobs import fake_config
from tests.ranking.files import write_lines

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("given", [None, b"in", 3, ["in"], "", Path])
def test_what_is_no_path_is_named(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^inputs: expected a path, found "):
        as_location(given, "inputs")


@pytest.mark.parametrize("given", [None, b"in", 3, {"in": 1}])
def test_what_holds_no_paths_is_named(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^inputs: expected a path or a list of paths, found "):
        as_locations(given, "inputs")
    with pytest.raises(ConfigError, match=r"^inputs: expected a path, found "):
        as_locations([given], "inputs")


def test_one_path_is_a_list_of_one() -> None:
    assert as_locations("./in", "inputs") == ["./in"]
    assert as_locations(Path("in"), "inputs") == ["in"]
    assert as_locations((path for path in (Path("a"), "s3://b/c")), "x") == ["a", "s3://b/c"]


def test_choice_is_one_of_those_there_are() -> None:
    check_choice("refuse", "on_change", ("refuse", "overwrite"))
    with pytest.raises(
        ConfigError, match=r"on_change: expected 'refuse' or 'overwrite', found 'Refuse'"
    ):
        check_choice("Refuse", "on_change", ("refuse", "overwrite"))


def test_every_call_takes_paths(tiny_tokenizer: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    queries = write_lines(tmp_path / "queries.tsv", "q1\tfirst", "q2\tsecond")
    corpus = write_lines(tmp_path / "corpus.tsv", "d1\tone", "d2\ttwo")
    run = write_lines(tmp_path / "run", *(f"q{i} Q0 d{i} 1 {i} t" for i in (1, 2)))
    qrels = write_lines(tmp_path / "qrels", "q1 0 d1 1", "q2 0 d2 1")
    source = TrecSource(run=run, queries=queries, corpus=corpus)
    assert import_pairs(source, pairs, ImportOptions(temp_folder=tmp_path)).num_shards == 1

    output = tmp_path / "scored"
    config = fake_config(tiny_tokenizer)
    assert run_job(config, pairs, output, quiet=True).num_rows == 2
    assert run_job(config, [pairs], tmp_path / "again", reuse=output, quiet=True).num_rows == 2
    assert verify_output(output).problems == ()
    assert retry_failed(output, quiet=True).exit_code == 0
    assert rank(output, tmp_path / "run.parquet", top_k=5, temp_folder=tmp_path).num_ranked == 2
    found = evaluate(run, qrels, baseline=output, metrics="RR@10", temp_folder=tmp_path)
    assert found.metrics[0].run.mean == 1.0
    compared = compare(output, tmp_path / "again", qrels_file=qrels, temp_folder=tmp_path)
    assert compared.overlap.num_scored == 2

    table = pq.read_table(pairs)
    texts = tmp_path / "documents.parquet"
    pq.write_table(table.select(["doc_id", "document"]), texts)
    pq.write_table(table.drop(["document"]), tmp_path / "ids.parquet")
    joined = run_job(
        config,
        tmp_path / "ids.parquet",
        tmp_path / "joined",
        tables=TextTables(documents=texts),
        quiet=True,
    )
    assert joined.num_rows == 2


def test_one_string_is_one_path_and_not_its_letters(tiny_tokenizer: Path, tmp_path: Path) -> None:
    config = fake_config(tiny_tokenizer)
    shutil.copytree(ROOT / "demo" / "pairs", tmp_path / "p")
    summary = run_job(config, str(tmp_path / "p"), str(tmp_path / "scored"), quiet=True)
    assert summary.num_rows == 270
    assert rank(str(tmp_path / "scored"), str(tmp_path / "run"), top_k=1).num_pairs == 270


def test_wrong_arguments_are_named_and_touch_nothing(tiny_tokenizer: Path, tmp_path: Path) -> None:
    config, pairs, output = fake_config(tiny_tokenizer), ROOT / "demo" / "pairs", tmp_path / "out"
    wrong: Any
    for wrong, message in (
        ((str(output), pairs, output), "config: expected a JobConfig, found str"),
        ((config, None, output), "inputs: expected a path or a list of paths"),
        ((config, pairs, None), "output: expected a path, found None"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_job(*wrong, quiet=True)
    run_job(config, pairs, output, quiet=True)
    other: Any = {"on_change": "Refuse"}
    with pytest.raises(ConfigError, match="on_change: expected 'refuse' or 'overwrite'"):
        run_job(fake_config(tiny_tokenizer, "protocol.max_length=30"), pairs, output, **other)
    assert verify_output(output).problems == ()
    for options, message in (
        ({"top_k": "3"}, "top_k: expected a whole number from 1"),
        ({"top_k": 0}, "top_k: expected a whole number from 1"),
        ({"top_k": 1, "run_format": "TREC"}, "run_format: expected 'parquet' or 'trec'"),
        ({"top_k": 1, "duplicates": "min"}, "duplicates: expected 'error' or 'max'"),
    ):
        given: Any = options
        with pytest.raises(ConfigError, match=message):
            rank(output, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_configuration_and_override_may_be_single(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "job.yaml", "model: {name: m}")
    assert load_config(path, "model.dtype=float16").model.dtype == "float16"
    wrong: Any = 3
    with pytest.raises(ConfigError, match="configuration: expected a path, found int"):
        load_config(wrong)
