"""Very many files are looked at by several processes, with the same outcome as by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.config.options import InputConfig
from rgpt_batch.errors import ShardError, StorageError
from rgpt_batch.input.inspect import inspect_shards
from tests.servers.faulty_proxy import Fault, FaultyProxy, always

WritePairs = Callable[..., Path]


@pytest.fixture
def paths(write_pairs: WritePairs) -> list[str]:
    """Files of different numbers of rows."""
    extra = {"title": pa.array(["a"])}
    return [
        str(write_pairs([("a", "b")] * n, f"{n}.parquet", {"title": pa.array(["a"] * n)}))
        for n in range(1, 8)
    ] + [str(write_pairs([("a", "b")], "odd name é.parquet", extra))]


def test_processes_say_the_same_in_the_same_order(paths: list[str]) -> None:
    """Costs some seconds: two processes start."""
    found = inspect_shards(paths, InputConfig(), ("title",), files_per_process=2)
    assert found == inspect_shards(paths, InputConfig(), ("title",))
    assert [shard.path for shard in found] == paths


def test_every_file_that_cannot_be_used_is_named(paths: list[str], write_pairs: WritePairs) -> None:
    Path(paths[0]).write_bytes(b"no Parquet")
    write_pairs([("a", "b")], Path(paths[-1]).name, {"title": pa.array([1])})
    with pytest.raises(ShardError) as by_one:
        inspect_shards(paths, InputConfig(), ("title",))
    with pytest.raises(ShardError) as by_several:
        inspect_shards(paths, InputConfig(), ("title",), files_per_process=2)
    assert str(by_several.value) == str(by_one.value)
    assert "2 of 8 shards cannot be used" in str(by_one.value)


def test_each_file_is_checked_whatever_the_others_are(write_pairs: WritePairs) -> None:
    """More than are tried before the rest is read; two schemas in turns."""
    written = [write_pairs(3, f"{n:02}.parquet") for n in range(60)]
    for path in written[::2]:
        table = pq.read_table(path)
        pq.write_table(table.select(table.column_names[::-1]), path)
    paths = [str(path) for path in written]
    assert [shard.path for shard in inspect_shards(paths, InputConfig(), ())] == paths
    # Of the same schema as others: the number of rows in the footer, and a column of numbers.
    content = written[40].read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length :].replace(b"\x16\x06", b"\x16\x08", 1)
    written[40].write_bytes(content[: -8 - length] + footer)
    write_pairs(3, written[55].name, {"document": pa.array([1, 2, 3])})
    with pytest.raises(ShardError) as caught:
        inspect_shards(paths, InputConfig(), ())
    first, *bad = str(caught.value).splitlines()
    assert first == "2 of 60 shards cannot be used:"
    assert bad[0].startswith(f"  {paths[40]}: the footer is damaged: ")
    assert bad[1].startswith(f"  {paths[55]}: column 'document' is int64")


def test_a_store_that_fails_is_an_error_of_the_storage(
    paths: list[str], bucket: str, s3: Any, proxy: FaultyProxy
) -> None:
    uris = []
    for number, path in enumerate(paths):
        s3.put_object(Bucket=bucket, Key=f"{number}.parquet", Body=Path(path).read_bytes())
        uris.append(f"s3://{bucket}/{number}.parquet")
    found = inspect_shards(uris, InputConfig(), (), files_per_process=2)
    assert [shard.path for shard in found] == uris
    proxy.choose = always("HEAD", "3.parquet", Fault.DENY)
    with pytest.raises(StorageError, match="denies access") as caught:
        inspect_shards(uris, InputConfig(), (), files_per_process=2)
    assert not caught.value.is_transient
