"""Damage Parquet files and read them in a process that may die of it.

    python -m tests.property.damage 5000 [SEED]

runs a campaign of so many mutations and prints what came of them.
"""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from rgpt_batch.config.options import InputConfig, UnitsConfig
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.input.inspect import inspect_shards
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.planning.units import plan_units
from rgpt_batch.records import Rejection, RejectionReason, ScorePair

NUM_VARIANTS = 12
ROWS = [(f"q{i % 7}", f"d{i}", f"query {i % 7}", f"document {i} " * 5) for i in range(60)]
_MEMORY_BYTES = 4 * 2**30
_HANG_SECONDS = 60.0

# What a damaged file may lead to.
REFUSED = "refused with an error that names the file"
UNREADABLE = "some rows rejected as UNREADABLE, all others right"
HARMLESS = "all rows right"
ALLOWED = {REFUSED, UNREADABLE, HARMLESS}

Read = Callable[[bytes, Path], str]


@functools.cache
def shard(variant: int) -> bytes:
    """Write ROWS with page checksums; the variants differ in codec, encoding and pages."""
    names = ("query_id", "doc_id", "query", "document")
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(dict(zip(names, zip(*ROWS, strict=True), strict=True))),
        sink,
        row_group_size=20,
        compression=("zstd", "snappy", "none", "gzip")[variant % 4],
        use_dictionary=variant % 3 == 0,
        data_page_size=(200, 10**6)[variant % 2],
        data_page_version=("1.0", "2.0")[variant // 2 % 2],
        write_page_checksum=True,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


class Edit(Protocol):
    """A change of some bytes; positions count around where a region is shorter."""

    def apply(self, region: bytearray) -> None: ...


@dataclass(frozen=True)
class Flip:
    position: int
    bit: int

    def apply(self, region: bytearray) -> None:
        region[self.position % len(region)] ^= 1 << self.bit


@dataclass(frozen=True)
class Overwrite:
    position: int
    content: bytes

    def apply(self, region: bytearray) -> None:
        start = self.position % len(region)
        region[start : start + len(self.content)] = self.content


@dataclass(frozen=True)
class Insert:
    position: int
    content: bytes

    def apply(self, region: bytearray) -> None:
        start = self.position % len(region)
        region[start:start] = self.content


@dataclass(frozen=True)
class Cut:
    position: int
    length: int

    def apply(self, region: bytearray) -> None:
        start = self.position % len(region)
        # Something is left, so that the next edit has its place.
        del region[max(start, 1) : start + self.length]


@dataclass(frozen=True)
class Swap:
    position: int
    distance: int
    length: int

    def apply(self, region: bytearray) -> None:
        first = self.position % len(region)
        second = first + self.length + self.distance
        a, b = (bytes(region[start : start + self.length]) for start in (first, second))
        if len(a) == len(b):
            region[first : first + len(a)], region[second : second + len(b)] = b, a


@dataclass(frozen=True)
class Damage:
    """What is done to a shard.

    Attributes:
        pages: Edits of what comes before the footer.
        footer: Edits of the footer's Thrift; its length is stated rightly.
        length_error: How far the stated length of the footer is off.
        num_cut: Bytes that are cut from the end of the file.
    """

    variant: int
    pages: Sequence[Edit]
    footer: Sequence[Edit]
    length_error: int
    num_cut: int

    def content(self) -> bytes:
        """The damaged shard."""
        intact = shard(self.variant)
        start = len(intact) - 8 - int.from_bytes(intact[-8:-4], "little")
        pages, footer = bytearray(intact[:start]), bytearray(intact[start:-8])
        for edits, region in ((self.pages, pages), (self.footer, footer)):
            for edit in edits:
                edit.apply(region)
        length = (len(footer) + self.length_error) % 2**32
        whole = bytes(pages + footer) + length.to_bytes(4, "little") + b"PAR1"
        return whole[: len(whole) - self.num_cut]


def damages() -> st.SearchStrategy[Damage]:
    """Valid shards with one to a few mutations each."""
    positions = st.integers(0, 2**13)
    lengths = st.sampled_from((1, 1, 2, 4, 16, 64))
    contents = st.one_of(
        st.binary(min_size=1, max_size=16),
        lengths.flatmap(lambda length: st.sampled_from((b"\xff" * length, bytes(length)))),
    )
    flips = st.builds(Flip, positions, st.integers(0, 7))
    edits = st.one_of(
        flips,
        flips,
        st.builds(Overwrite, positions, contents),
        st.builds(Insert, positions, contents),
        st.builds(Cut, positions, lengths),
        st.builds(Swap, positions, st.integers(0, 400), lengths),
    )
    variants = st.integers(0, NUM_VARIANTS - 1)
    none, some = st.just(()), st.lists(edits, min_size=1, max_size=4)
    no_error, no_cut = st.just(0), st.just(0)
    errors = st.integers(-(2**11), 2**31).filter(bool)
    return st.one_of(
        st.builds(Damage, variants, none, some, no_error, no_cut),
        st.builds(Damage, variants, none, st.lists(flips, min_size=1), no_error, no_cut),
        st.builds(Damage, variants, some, none, no_error, no_cut),
        st.builds(Damage, variants, some, some, no_error, no_cut),
        st.builds(Damage, variants, none, none, errors, no_cut),
        st.builds(Damage, variants, none, none, no_error, st.integers(1, 2**13)),
    )


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
                if isinstance(pair, ScorePair):
                    found.append((query_id, doc_id, pair.query, pair.document))
                else:
                    found.append(pair)
    return found


def outcome(content: bytes, path: Path) -> str:
    """Say what reading a shard of this content leads to."""
    path.write_bytes(content)
    try:
        found = read_all(path)
    except RgptBatchError as error:
        return REFUSED if str(path) in str(error) else f"unclear: {error}"
    except MemoryError as error:
        return f"memory: {error}"
    except Exception as error:
        return f"unforeseen {type(error).__name__}: {str(error)[:200]}"
    return compare(found)


def compare(found: Sequence[Any]) -> str:
    """Say how the rows that were read differ from those that were written."""
    if len(found) != len(ROWS):
        return f"WRONG COUNT: {len(found)}"
    rejected = 0
    for there, row in zip(found, ROWS, strict=True):
        if isinstance(there, Rejection):
            rejected += 1
            if there.reason is not RejectionReason.UNREADABLE:
                return f"WRONG REJECTION: {there.reason}"
        elif there != row:
            return f"WRONG ROW: {there} for {row}"
    return UNREADABLE if rejected else HARMLESS


class Reader:
    """A process that reads shards; one that dies or hangs is replaced.

    It is not forked: in a process that other tests have given threads, pyarrow's would be missing.

    Args:
        folder: Where it writes them.
        read: What it does with the content and path of each.
    """

    def __init__(self, folder: Path, read: Read | None = None) -> None:
        self._folder = folder
        self._read = read or outcome
        self._child: Any = None
        self._pipe: Any = None

    def outcome(self, content: bytes) -> str:
        """Say what reading a shard of this content leads to."""
        if self._child is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, inner = context.Pipe()
            arguments = (self._folder, inner, self._read)
            self._child = context.Process(target=_serve, args=arguments, daemon=True)
            self._child.start()
            inner.close()
        try:
            self._pipe.send_bytes(content)
            if self._pipe.poll(_HANG_SECONDS):
                found: str = self._pipe.recv()
                return found
            self.close()
            return "HANG"
        except (EOFError, OSError):
            self._child.join()
            code, self._child = self._child.exitcode, None
            said = (self._folder / "stderr").read_text(errors="replace").strip()
            return f"CRASH {code}: {said[-300:]}"

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.join()
            self._child = None


def _serve(folder: Path, pipe: Connection, read: Read) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    while True:
        pipe.send(read(pipe.recv_bytes(), folder / "pairs.parquet"))


def campaign(num_mutations: int, counts: Counter[str], seed: int | None = None) -> None:
    """Count what mutations lead to.

    Args:
        num_mutations: How many.
        counts: Filled with the number of mutations for every outcome.
        seed: Of the choice; without one it is always the same.

    Raises:
        AssertionError: One led to something that is not allowed; hypothesis says to the smallest.
    """
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder))

        @hypothesis.settings(
            max_examples=num_mutations,
            deadline=None,
            database=None,
            derandomize=seed is None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        @hypothesis.given(damages())
        def read(damage: Damage) -> None:
            found = reader.outcome(damage.content())
            counts[found] += 1
            assert found in ALLOWED, found

        try:
            (read if seed is None else hypothesis.seed(seed)(read))()
        finally:
            reader.close()


if __name__ == "__main__":
    started = time.monotonic()
    results: Counter[str] = Counter()
    try:
        campaign(int(sys.argv[1]), results, int(sys.argv[2]) if len(sys.argv) > 2 else None)
    finally:
        for text, count in results.most_common():
            print(f"{count:6,}  {text}")
        print(f"{time.monotonic() - started:.0f} s")
