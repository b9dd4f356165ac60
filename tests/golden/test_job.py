"""The whole job, from a Parquet file to scored files, gives every row the reference's score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.config.options import JobConfig
from rgpt_batch.job.run_job import run_job
from rgpt_batch.records import QueryLogprobs
from tests.engines.configs import METHODS, float32_config
from tests.golden.pairs import MODEL_CARD_PAIR, Pair, long_pairs, odd_pairs, overlong_pairs
from tests.golden.pairs import varied_pairs as all_kinds
from tests.golden.reference import Prompt, card_prompt, eval_prompt, load_reference
from tests.golden.tolerances import allowed, difference

QUERY, DOCUMENT = MODEL_CARD_PAIR


@dataclass(frozen=True)
class Row:
    """An input row, and the prompt that the reference makes of it or why it has none."""

    query: str | None
    document: str | None
    expected: Prompt | str


UNSCORABLE = [
    Row(None, DOCUMENT, "NULL_QUERY"),
    Row(QUERY, None, "NULL_DOCUMENT"),
    Row("", DOCUMENT, "EMPTY_QUERY"),
    Row(" \n", DOCUMENT, "EMPTY_QUERY"),
]


def run_and_read(config: JobConfig, rows: list[Row], write_pairs: Any, output: Path) -> pa.Table:
    """Run a job in units of at most 50 rows; returns its output rows in order."""
    input_file = write_pairs([(row.query, row.document) for row in rows], row_group_size=30)
    config = config.model_copy(
        update={
            "output": config.output.model_copy(update={"query_token_logprobs": True}),
            "units": config.units.model_copy(update={"max_rows": 50}),
            "executor": config.executor.model_copy(update={"kind": "local"}),
        }
    )
    summary = run_job(config, [str(input_file)], str(output), quiet=True)
    assert summary.problems == ()
    assert summary.exit_code == 0
    assert summary.num_units > 1
    table = pa.concat_tables(pq.read_table(file) for file in sorted(output.glob("part-*.parquet")))
    written = pq.read_table(input_file)
    assert table["query_id"].equals(written["query_id"])
    assert table["doc_id"].equals(written["doc_id"])
    return table


def assert_equal_to_reference(
    table: pa.Table, rows: list[Row], model: Path, method: str
) -> list[dict[str, Any]]:
    """Compare every output row; returns those that have a score."""
    reference = load_reference(model)
    scored, answers = [], []
    for found, row in zip(table.to_pylist(), rows, strict=True):
        if isinstance(row.expected, str):
            assert found["rejection"] == row.expected
            assert found["score"] is found["sum_logprob"] is found["query_token_logprobs"] is None
        else:
            assert found["rejection"] is None
            assert found["num_query_tokens"] == len(row.expected.query_ids)
            scored.append(found)
            answers.append(reference.answer(row.expected))
    largest = difference(
        [QueryLogprobs(values=pa.array(row["query_token_logprobs"]).to_numpy()) for row in scored],
        [row["score"] for row in scored],
        answers,
    )
    limit = allowed(method, "tiny_llama")
    assert largest.token <= limit.token
    assert largest.mean <= limit.mean
    return scored


@pytest.mark.vllm
def test_a_card_job_gives_every_row_the_references_score(
    tiny_llama: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    tokenizer = load_reference(tiny_llama).tokenizer
    rows = [Row(*pair, card_prompt(tokenizer, *pair)) for pair in all_kinds()]
    for position, row in zip((0, 60, 61, len(rows)), UNSCORABLE, strict=True):
        rows.insert(position, row)
    config = float32_config(tiny_llama, "query-rows")
    table = run_and_read(config, rows, write_pairs, tmp_path / "out")
    assert_equal_to_reference(table, rows, tiny_llama, "query-rows")
    assert set(table["num_dropped_document_tokens"].drop_null().to_pylist()) == {0}


def eval_row(tokenizer: Any, pair: Pair, *, arguana: bool) -> Row:
    prompt = eval_prompt(tokenizer, *pair, arguana=arguana)
    return Row(*pair, prompt if prompt.query_ids else "EMPTY_QUERY")


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("protocol", ["eval", "eval-arguana"])
def test_a_job_with_a_protocol_of_eval_py_gives_every_row_the_references_score(
    protocol: str,
    method: str,
    tiny_llama: Path,
    write_pairs: Callable[..., Path],
    tmp_path: Path,
) -> None:
    tokenizer = load_reference(tiny_llama).tokenizer
    arguana = protocol == "eval-arguana"
    pairs = [*overlong_pairs(), *odd_pairs(), *long_pairs()]
    if arguana:
        pairs += [(document, query) for query, document in overlong_pairs()]
    rows = [*UNSCORABLE, *(eval_row(tokenizer, pair, arguana=arguana) for pair in pairs)]
    config = float32_config(tiny_llama, method, protocol=protocol)
    table = run_and_read(config, rows, write_pairs, tmp_path / "out")
    scored = assert_equal_to_reference(table, rows, tiny_llama, method)

    first, bos = scored[0], 1
    num_template_tokens = len(tokenizer.encode("Document: {doc} Query:"))
    num_query_tokens = len(tokenizer.encode(QUERY))
    num_kept = 256 if arguana else 512 - num_template_tokens - num_query_tokens - 10
    assert first["num_document_tokens"] == num_kept
    num_all = len(tokenizer.encode(overlong_pairs()[0][1])) - bos
    assert first["num_dropped_document_tokens"] == num_all - num_kept


@pytest.mark.parametrize("protocol", ["eval", "eval-arguana"])
def test_the_reference_of_eval_py_differs_from_the_model_cards(
    protocol: str, tiny_llama: Path
) -> None:
    # Else the tests above would not tell the protocols apart.
    tokenizer = load_reference(tiny_llama).tokenizer
    for pair in (MODEL_CARD_PAIR, overlong_pairs()[0]):
        prompt = eval_prompt(tokenizer, *pair, arguana=protocol == "eval-arguana")
        assert prompt != card_prompt(tokenizer, *pair)
        assert len(prompt.context_ids + prompt.query_ids) <= 544
