"""Whatever happens to the bytes of a shard: a clear error, or the right rows."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from rgpt_batch.config.options import InputConfig
from rgpt_batch.errors import ShardError
from rgpt_batch.input.inspect import inspect_shards
from tests.property import damage


def test_a_damaged_shard_is_refused_or_read_right() -> None:
    counts: Counter[str] = Counter()
    # 160 shards, or as many more as a long profile asks for.
    num_examples = settings().max_examples
    damage.campaign(4 * num_examples, counts)
    # Each of them does happen.
    assert min(counts[kind] for kind in damage.ALLOWED) > num_examples // 6, counts


def test_size_statistics_that_contradict_the_schema_do_not_end_the_process(tmp_path: Path) -> None:
    reader = damage.Reader(tmp_path)
    content = damage.shard(0)
    # In the schema, a column that is optional becomes required: without definition levels.
    position = content.index(b"\x25\x02\x18\x08query_id") + 1
    content = content[:position] + b"\x00" + content[position + 1 :]
    assert reader.outcome(content) == damage.REFUSED
    reader.close()
    with pytest.raises(
        ShardError, match=r"pairs\.parquet: the footer cannot be used: .* histogram"
    ):
        inspect_shards([str(tmp_path / "pairs.parquet")], InputConfig(), ())


def test_the_oracle_sees_a_wrong_a_lost_and_a_doubled_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_bytes(damage.shard(0))
    found = damage.read_all(path)
    assert damage.compare(found) == damage.HARMLESS
    assert damage.compare(found[:-1]) == "WRONG COUNT: 59"
    assert damage.compare([*found, found[-1]]) == "WRONG COUNT: 61"
    wrong = [*found[:7], (*found[7][:3], "another document"), *found[8:]]
    assert damage.compare(wrong).startswith("WRONG ROW: ('q0', 'd7'")


def die_or_read(content: bytes, path: Path) -> str:
    if content == b"die":
        os.abort()
    return damage.outcome(content, path)


def test_a_reader_that_dies_is_reported_and_replaced(tmp_path: Path) -> None:
    reader = damage.Reader(tmp_path, die_or_read)
    assert reader.outcome(b"die").startswith("CRASH -6")
    assert reader.outcome(damage.shard(0)) == damage.HARMLESS
    reader.close()
