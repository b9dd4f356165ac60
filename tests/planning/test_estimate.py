"""Token counts of a sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rgpt_batch.job.plan import plan_job
from rgpt_batch.planning.estimate import TokenSample, sample_tokens
from tests.jobs import Score, fake_config

WritePairs = Callable[..., Path]


def _sample(path: Path, tokenizer: Path, num_rows: int, *overrides: str) -> TokenSample:
    config, manifest = plan_job(
        fake_config(tokenizer, *overrides), [str(path)], str(path.parent / "scored")
    )
    return sample_tokens(config, manifest, num_rows)


def test_sample_of_all_rows_counts_what_the_job_counts(
    score_with_fake: Score, write_pairs: WritePairs, tiny_tokenizer: Path
) -> None:
    pairs = [("a query", "document " * (10 * i)) for i in range(8)] + [("", "x"), (None, "x")]
    path = write_pairs(pairs)
    limit = "protocol.max_length=60"
    sample = _sample(path, tiny_tokenizer, 10, limit)
    scored = score_with_fake(path, overrides=(limit,))
    assert sample.num_rows == 10
    assert sample.rejected_fraction == 0.2
    assert sample.mean_prompt_tokens == scored.summary.num_prompt_tokens / 8
    assert sample.truncated_fraction == scored.summary.num_truncated_rows / 10 > 0
    query_tokens = [count for count in scored.column("num_query_tokens") if count]
    assert sample.mean_query_tokens == sum(query_tokens) / 8


@pytest.mark.parametrize(
    ("num_rows", "num_sampled"), [(1, 16), (16, 16), (50, 64), (160, 160), (9999, 160)]
)
def test_sample_is_taken_evenly_from_sixteen_units_at_most(
    write_pairs: WritePairs, tiny_tokenizer: Path, num_rows: int, num_sampled: int
) -> None:
    # 31 units of 10 rows; every second one is sampled.
    sample = _sample(write_pairs(310), tiny_tokenizer, num_rows, "units.max_rows=10")
    assert sample.num_rows == num_sampled


def test_sample_of_an_input_without_rows_is_empty(
    write_pairs: WritePairs, tiny_tokenizer: Path
) -> None:
    sample = _sample(write_pairs(0), tiny_tokenizer, 10)
    assert sample.num_rows == 0
    assert sample.mean_prompt_tokens == sample.mean_query_tokens == 0
    assert sample.rejected_fraction == sample.truncated_fraction == 0
