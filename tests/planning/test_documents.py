"""How often documents repeat over an input, within units, and what clustering saves."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch import run_job
from rgpt_batch.commands.planning import plan
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.job.plan import plan_job
from rgpt_batch.planning.documents import DocumentCounts, count_documents, shares_documents
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from tests.jobs import fake_config

NUM_DOCUMENTS, QUERIES_PER_DOCUMENT, DOCUMENTS_PER_QUERY = 100, 16, 25


@pytest.fixture(scope="module")
def query_ordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker's input: 64 queries with 25 documents each, of documents with 16 queries each."""
    chooser = random.Random(1)
    texts = [
        " ".join(chooser.choices(["baby", "walks", "soon", "water", "boils"], k=40 + d % 30))
        for d in range(NUM_DOCUMENTS)
    ]
    # Each document is in 16 of the 64 queries, and no query has it twice.
    rows = [
        (query, (slot * 4 + query % 4) % NUM_DOCUMENTS)
        for query in range(NUM_DOCUMENTS * QUERIES_PER_DOCUMENT // DOCUMENTS_PER_QUERY)
        for slot in range(DOCUMENTS_PER_QUERY)
    ]
    table = {
        "query_id": [f"q{query}" for query, _ in rows],
        "query": [f"when does number {query} begin to walk" for query, _ in rows],
        "doc_id": pa.array([document for _, document in rows], pa.int32()),
        "document": [texts[document] for _, document in rows],
    }
    path = tmp_path_factory.mktemp("in") / "pairs.parquet"
    pq.write_table(pa.table(table), path, row_group_size=250)
    return path


def manifest_of(folder: Path) -> Manifest:
    (path,) = (folder / "_rgpt").glob("plan-*.json")
    return Manifest.from_json(path.read_bytes(), str(path))


def computed_tokens(manifest: Manifest, tokenizer: Path) -> int:
    """Tokens that are computed where each unit computes its documents once."""
    config = fake_config(tokenizer)
    protocol = load_protocol(config.protocol, config.model)
    num_computed = 0
    for unit in manifest.units:
        contexts: dict[bytes, int] = {}
        for batch in read_pairs(unit, manifest.columns, source=False):
            for pair in protocol.tokenize(batch.pairs):
                assert isinstance(pair, TokenizedPair)
                num_computed += pair.num_query_tokens
                contexts[pair.token_ids[: pair.query_start].tobytes()] = pair.query_start
        num_computed += sum(contexts.values())
    return num_computed


def test_clustering_saves_nearly_all_that_repeats(
    query_ordered: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    units = "units.max_rows=125"
    _, plain = plan_job(
        fake_config(tiny_tokenizer, units), [str(query_ordered)], str(tmp_path / "plain")
    )
    _, whole = plan_job(fake_config(tiny_tokenizer), [str(query_ordered)], str(tmp_path / "whole"))
    assert len(whole.units) == 1
    config = fake_config(tiny_tokenizer, units, "units.order=document")
    run_job(config, query_ordered, tmp_path / "clustered", quiet=True)
    clustered = manifest_of(tmp_path / "clustered")
    ideal, before, after = (
        computed_tokens(manifest, tiny_tokenizer) for manifest in (whole, plain, clustered)
    )
    assert len(clustered.units) >= 10
    # No document's rows are in two units, so that all is saved that can be.
    assert after == ideal
    assert before > 5 * after
    counts = count_documents(plain.units, plain.columns)
    assert counts == DocumentCounts(
        num_rows=1600, num_documents=100, num_in_units=counts.num_in_units
    )
    assert counts.num_in_units == sum(
        len({d for b in read_pairs(u, plain.columns, source=False) for d in b.columns["doc_id"]})
        for u in plain.units
    )


def test_plan_says_how_often_documents_repeat_and_what_clustering_saves(
    query_ordered: Path, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    command = ["-i", query_ordered, "--output", tmp_path / "out", "--model", tiny_tokenizer]
    command += ["-o", "engine.method=fake", "-o", "units.max_rows=100"]
    shown = CliRunner().invoke(plan, list(map(str, command)))
    assert shown.exit_code == 0, shown.output
    (line,) = (line for line in shown.output.splitlines() if line.startswith("documents"))
    assert "repeat 16 times over the input, 1 times within units: --order document" in line
    share = int(line.split("computes ")[1].split("%")[0])
    _, plain = plan_job(
        fake_config(tiny_tokenizer, "units.max_rows=100"),
        [str(query_ordered)],
        str(tmp_path / "out"),
    )
    _, whole = plan_job(fake_config(tiny_tokenizer), [str(query_ordered)], str(tmp_path / "whole"))
    exact = computed_tokens(whole, tiny_tokenizer) / computed_tokens(plain, tiny_tokenizer)
    assert abs(share - 100 * exact) <= 2
    shown = CliRunner().invoke(plan, [*map(str, command), "--order", "document"])
    assert shown.exit_code == 0, shown.output
    assert f"clustered, {share}% of the tokens are computed" in shown.output
    assert "GiB where the output is while pairs are clustered" in shown.output
    # Nothing is written.
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("engine.method=auto",), True),
        (("engine.method=fake",), True),
        (("engine.method=prompt-logprobs",), False),
        (("engine.method=auto", "engine.prefix_caching=false"), False),
    ],
)
def test_clustering_is_not_advised_where_the_engine_computes_each_prompt(
    tiny_tokenizer: Path, overrides: tuple[str, ...], expected: bool
) -> None:
    assert shares_documents(fake_config(tiny_tokenizer, *overrides)) is expected


def test_rows_without_an_id_do_not_count(
    write_pairs: Callable[..., Path], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    path = write_pairs(4, extra={"doc_id": pa.array(["a", None, "a", "b"], pa.string())})
    _, manifest = plan_job(fake_config(tiny_tokenizer), [str(path)], str(tmp_path / "out"))
    counts = count_documents(manifest.units, manifest.columns)
    assert counts == DocumentCounts(num_rows=3, num_documents=2, num_in_units=2)


def test_an_input_without_rows_has_no_documents(
    write_pairs: Callable[..., Path], tiny_tokenizer: Path, tmp_path: Path
) -> None:
    path = write_pairs(0)
    _, manifest = plan_job(fake_config(tiny_tokenizer), [str(path)], str(tmp_path / "out"))
    counts = count_documents(manifest.units, manifest.columns)
    assert counts == DocumentCounts(num_rows=0, num_documents=0, num_in_units=0)
    assert not counts.pays
