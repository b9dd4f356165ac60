"""Looking up scores by hash, and the hash itself."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgpt_batch.records import Rejection, RejectionReason, ScorePair
from rgpt_batch.reuse.index import ScoreIndex, split_hashes
from rgpt_batch.scoring.pair_hash import pair_hash, pair_hashes


def _write(path: Path, rows: list[tuple[bytes, float]], rows_per_batch: int) -> ScoreIndex:
    """Write an index as build_index does, but with small batches."""
    rows = sorted(rows)
    high, low = split_hashes(b"".join(value for value, _ in rows))
    table = pa.table(
        {
            "hash_high": high,
            "hash_low": low,
            "score": pa.array([score for _, score in rows], pa.float32()),
            "sum_logprob": pa.array([2 * score for _, score in rows], pa.float32()),
            "num_query_tokens": pa.array([2] * len(rows), pa.int32()),
            "num_document_tokens": pa.array([5] * len(rows), pa.int32()),
            "num_dropped_document_tokens": pa.array([0] * len(rows), pa.int32()),
        }
    )
    with path.open("wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_per_batch)
    return ScoreIndex(str(path))


@pytest.mark.parametrize("rows_per_batch", [1, 2, 7, 1000])
def test_what_is_there_is_found_and_nothing_else(tmp_path: Path, rows_per_batch: int) -> None:
    chooser = random.Random(0)
    known = {chooser.randbytes(16): -float(i) for i in range(60)}
    absent = [chooser.randbytes(16) for _ in range(60)]
    # Neighbours of what is there, and the ends of the range.
    absent += [value[:-1] + bytes([value[-1] ^ 1]) for value in known]
    absent += [bytes([value[0] ^ 128]) + value[1:] for value in known]
    absent += [bytes(16), b"\xff" * 16]
    index = _write(tmp_path / "index.arrow", list(known.items()), rows_per_batch)
    asked = [*known, *absent, None]
    chooser.shuffle(asked)
    found = index.find(asked)
    assert [None if f is None else f.score.value for f in found] == [
        None if value is None else known.get(value) for value in asked
    ]


def test_a_hash_that_is_there_many_times_is_found_across_batches(tmp_path: Path) -> None:
    twice = bytes(range(16))
    rows = [(bytes(16), -1.0), *[(twice, -2.0)] * 9, (b"\xff" * 16, -3.0)]
    index = _write(tmp_path / "index.arrow", rows, rows_per_batch=2)
    found = index.find([twice, b"\xff" * 16, bytes(16), twice])
    assert [f and f.score.value for f in found] == [-2.0, -3.0, -1.0, -2.0]


def test_an_empty_index_and_an_empty_question_give_nothing(tmp_path: Path) -> None:
    index = _write(tmp_path / "index.arrow", [], rows_per_batch=1)
    assert index.find([bytes(16), None]) == [None, None]
    assert index.find([]) == []
    index = _write(tmp_path / "other.arrow", [(bytes(16), -1.0)], rows_per_batch=1)
    assert index.find([None, None]) == [None, None]


def test_the_hash_never_changes_since_outputs_hold_it() -> None:
    pair = ScorePair(query="wann läuft ein Baby", document="Mit 13 Monaten 👶.")
    # hashlib.blake2b(len(query).to_bytes(8, "little") + query + document, digest_size=16)
    assert pair_hash(pair).hex() == "58d348c05571985287066d7b155b3090"


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=30))
def test_pairs_share_a_hash_only_if_query_and_document_are_equal(
    texts: list[tuple[str, str]],
) -> None:
    pairs = [ScorePair(query=query, document=document) for query, document in texts]
    assert len(set(pair_hashes(pairs))) == len(set(texts))


def test_a_row_that_is_no_pair_has_no_hash() -> None:
    rejection = Rejection(reason=RejectionReason.NULL_QUERY)
    pair = ScorePair(query="", document="")
    assert pair_hashes([rejection, pair]) == [None, pair_hash(pair)]
