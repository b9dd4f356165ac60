"""Damage Parquet files at random and read them in processes that may die of it.

    python -m tests.property.damage 5000

runs a campaign of so many mutations and prints what came of them.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.config import InputConfig, UnitsConfig
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.plan import inspect_shards, plan_units
from rgpt_batch.records import Rejection, RejectionReason, ScorePair
from rgpt_batch.shards import read_pairs

NUM_ROWS = 60
_MEMORY_BYTES = 4 * 2**30
_HANG_SECONDS = 30.0

# What a damaged file may lead to.
REFUSED = "refused with an error that names the file"
UNREADABLE = "some rows rejected as UNREADABLE, all others right"
HARMLESS = "all rows right"
# pyarrow 26 reads the size statistics of a column chunk outside of all of its error handling.
ABORTED = "pyarrow aborts: histogram size mismatch in the footer's size statistics"


def write_shard(path: Path, variant: int) -> list[tuple[str, str, str, str]]:
    """Write a shard with page checksums; the variants differ in codec, encoding and pages."""
    rows = [(f"q{i % 7}", f"d{i}", f"query {i % 7}", f"document {i} " * 5) for i in range(NUM_ROWS)]
    names = ("query_id", "doc_id", "query", "document")
    pq.write_table(
        pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))),
        path,
        row_group_size=20,
        compression=("zstd", "snappy", "none", "gzip")[variant % 4],
        use_dictionary=variant % 3 == 0,
        data_page_size=(200, 10**6)[variant % 2],
        data_page_version=("1.0", "2.0")[variant // 2 % 2],
        write_page_checksum=True,
    )
    return rows


def mutate(content: bytes, chooser: random.Random) -> bytes:
    """Change some bytes; half of the time in the footer, which has no checksum."""
    changed = bytearray(content)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(chooser.choice((1, 1, 1, 2, 5))):
        low = footer if chooser.random() < 0.5 else 0
        position = chooser.randrange(low, len(content))
        length = chooser.choice((1, 1, 2, 4, 16))
        match chooser.randrange(7):
            case 0 | 1:
                changed[position : position + 1] = [changed[position] ^ 1 << chooser.randrange(8)]
            case 2:
                changed[position : position + length] = chooser.randbytes(length)
            case 3:
                changed[position : position + length] = chooser.choice((b"\xff", b"\0")) * length
            case 4:
                del changed[position : position + length]
            case 5:
                changed[position:position] = chooser.randbytes(length)
            case 6:
                source = chooser.randrange(len(content))
                changed[position : position + length] = content[source : source + length]
        if len(changed) < len(content):
            changed += bytes(len(content) - len(changed))
        del changed[len(content) :]
    if chooser.random() < 0.02:
        del changed[chooser.randrange(len(changed)) :]
    return bytes(changed)


def read_all(path: Path) -> list[Any]:
    """Plan and read a shard as a job does; rows as tuples, or rejections."""
    shards = inspect_shards([str(path)], InputConfig(), ())
    found: list[Any] = []
    for unit in plan_units(shards, UnitsConfig(max_rows=25)):
        for batch in read_pairs(unit, shards[0].columns, source=False):
            ids = zip(
                *(batch.columns[name].to_pylist() for name in ("query_id", "doc_id")), strict=True
            )
            for (query_id, doc_id), pair in zip(ids, batch.pairs, strict=True):
                is_pair = isinstance(pair, ScorePair)
                found.append((query_id, doc_id, pair.query, pair.document) if is_pair else pair)
    return found


def outcome(seed: int, folder: Path) -> str:
    """Damage a shard in the way that the seed says, and say what reading it leads to."""
    chooser = random.Random(seed)
    path = folder / "pairs.parquet"
    rows = write_shard(path, chooser.randrange(12))
    path.write_bytes(mutate(path.read_bytes(), chooser))
    try:
        found = read_all(path)
    except RgptBatchError as error:
        return REFUSED if str(path) in str(error) else f"unclear: {error}"
    except MemoryError as error:
        return f"memory: {error}"
    except Exception as error:
        return f"unforeseen {type(error).__name__}: {str(error)[:200]}"
    return compare(found, rows)


def compare(found: Sequence[Any], rows: Sequence[Any]) -> str:
    """Say how the rows that were read differ from those that were written."""
    if len(found) != len(rows):
        return f"WRONG COUNT: {len(found)}"
    rejected = 0
    for there, row in zip(found, rows, strict=True):
        if isinstance(there, Rejection):
            rejected += 1
            if there.reason is not RejectionReason.UNREADABLE:
                return f"WRONG REJECTION: {there.reason}"
        elif there != row:
            return f"WRONG ROW: {there} for {row}"
    return UNREADABLE if rejected else HARMLESS


def _read_in_child(seeds: Sequence[int], folder: str, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(Path(folder, "stderr"), os.O_WRONLY | os.O_CREAT), 2)
    for seed in seeds:
        pipe.send(outcome(seed, Path(folder)))


def campaign(seeds: Sequence[int]) -> dict[int, str]:
    """Return the outcome for every seed; a process that dies or hangs is replaced."""
    context = multiprocessing.get_context("fork")
    outcomes: dict[int, str] = {}
    while left := seeds[len(outcomes) :]:
        with tempfile.TemporaryDirectory() as folder:
            pipe, inner = context.Pipe()
            child = context.Process(target=_read_in_child, args=(left, folder, inner))
            child.start()
            inner.close()
            for seed in left:
                try:
                    if not pipe.poll(_HANG_SECONDS):
                        child.kill()
                        outcomes[seed] = "HANG"
                        break
                    outcomes[seed] = pipe.recv()
                except EOFError:
                    child.join()
                    said = Path(folder, "stderr").read_text(errors="replace")
                    is_known = child.exitcode == -signal.SIGABRT and "histogram size" in said
                    outcomes[seed] = ABORTED if is_known else f"CRASH {child.exitcode}: {said}"
                    break
            child.join()
    return outcomes


if __name__ == "__main__":
    started = time.monotonic()
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    results = campaign(range(first, first + int(sys.argv[1])))
    for text, count in Counter(results.values()).most_common():
        example = next(seed for seed, found in results.items() if found == text)
        print(f"{count:6,}  {text}  (for example seed {example})")
    print(f"{time.monotonic() - started:.0f} s")
