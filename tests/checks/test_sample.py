"""Which pairs the parity check looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rgpt_batch.checks.parity import choose_sample
from rgpt_batch.job.plan import plan_job
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import WorkUnit
from tests.jobs import fake_config

WritePairs = Callable[..., Path]
Plan = Callable[[Sequence[Path]], Manifest]


@pytest.fixture
def plan(tiny_tokenizer: Path, tmp_path: Path) -> Plan:
    def plan_one(paths: Sequence[Path]) -> Manifest:
        inputs = [str(path) for path in paths]
        return plan_job(fake_config(tiny_tokenizer), inputs, str(tmp_path / "scored"))[1]

    return plan_one


def _texts(sample: WorkUnit) -> list[tuple[str, str]]:
    rows = []
    for segment in sample.segments:
        assert segment.num_rows == 1
        (row,) = pq.read_table(segment.path).slice(segment.first_row, 1).to_pylist()
        rows.append((row["query"], row["document"]))
    return rows


def test_the_sample_is_spread_over_all_shards_and_has_no_pair_twice(
    plan: Plan, write_pairs: WritePairs
) -> None:
    pairs = [(f"query {i}", f"document {i}") for i in range(8000)]
    paths = [
        write_pairs(pairs[low : low + 1000], f"{low:05}.parquet", row_group_size=300)
        for low in range(0, 8000, 1000)
    ]
    sample = choose_sample(plan(paths), 64)
    assert sample.num_rows == 64
    assert len(set(_texts(sample))) == 64
    per_shard = [sum(s.path == str(path) for s in sample.segments) for path in paths]
    assert min(per_shard) >= 5


def test_the_same_job_has_the_same_sample_and_another_job_another(
    plan: Plan, write_pairs: WritePairs
) -> None:
    path = write_pairs(500)
    first, again = (choose_sample(plan([path]), 20) for _ in range(2))
    assert first == again
    other = write_pairs(500, "other.parquet")
    rows = [s.first_row for s in choose_sample(plan([other]), 20).segments]
    assert rows != [s.first_row for s in first.segments]


@pytest.mark.parametrize("position", [0, 700, 1999])
def test_the_longest_pair_is_in_the_sample(
    plan: Plan, write_pairs: WritePairs, position: int
) -> None:
    pairs = [(f"query {i}", f"document {i}") for i in range(2000)]
    pairs[position] = ("query", "long " * 1000)
    for num_pairs in (1, 5):
        assert pairs[position] in _texts(choose_sample(plan([write_pairs(pairs)]), num_pairs))


def test_rows_without_a_score_are_left_out(plan: Plan, write_pairs: WritePairs) -> None:
    good = [("query", f"document {i}") for i in range(3)]
    pairs = [(None, "x" * 99), ("y", None), ("", "z" * 99), (" \n", "z"), *good, *good]
    assert sorted(_texts(choose_sample(plan([write_pairs(pairs)]), 10))) == good


@pytest.mark.parametrize("pairs", [[], [(None, "document")]])
def test_an_input_without_pairs_gives_an_empty_sample(
    plan: Plan, write_pairs: WritePairs, pairs: list[tuple[str | None, str | None]]
) -> None:
    assert choose_sample(plan([write_pairs(pairs)]), 10).segments == ()


def test_many_small_shards_are_enough_for_a_large_sample(
    plan: Plan, write_pairs: WritePairs
) -> None:
    paths = [write_pairs([("query", f"document {i}")], f"{i:03}.parquet") for i in range(60)]
    assert choose_sample(plan(paths), 50).num_rows == 50
