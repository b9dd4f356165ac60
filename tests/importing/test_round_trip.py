"""Imported pairs are scored as they are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch import load_config, run_job
from tests.importing.files import beir_source, run_import, trec_source, write_beir, write_run


def _score(pairs: Path, output: Path, tokenizer: Path) -> list[dict[str, object]]:
    config = load_config(
        None,
        (
            f"model.name={tokenizer}",
            "engine.method=fake",
            "executor.kind=local",
            "output.max_rejected_fraction=1",
            "output.pass_through=[first_stage_score, first_stage_rank]",
            "units.max_rows=2",
        ),
    )
    summary = run_job(config, [str(pairs)], str(output), quiet=True)
    assert summary.exit_code == 0, summary.problems
    parts = sorted(output.glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts).to_pylist()


def test_import_of_a_beir_folder_can_be_scored(tmp_path: Path, tiny_tokenizer: Path) -> None:
    source = beir_source(write_beir(tmp_path / "beir"), write_run(tmp_path / "run"))
    run_import(source, tmp_path / "pairs", rows_per_shard=2)
    rows = _score(tmp_path / "pairs", tmp_path / "scored", tiny_tokenizer)
    found = [(row["query_id"], row["doc_id"], row["first_stage_rank"]) for row in rows]
    assert found == [("q1", "d1", 1), ("q1", "d3", 2), ("q2", "d2", 1)]
    assert all(row["rejection"] is None and row["score"] is not None for row in rows)


def test_pairs_kept_without_text_are_rejected_with_a_reason(
    tmp_path: Path, tiny_tokenizer: Path
) -> None:
    run = write_run(
        tmp_path / "run", [("q1", "d1", 1, 2.0), ("q1", "d9", 2, 1.0), ("q9", "d1", 1, 1.0)]
    )
    run_import(trec_source(tmp_path, run=run), tmp_path / "pairs", missing="null")
    rows = _score(tmp_path / "pairs", tmp_path / "scored", tiny_tokenizer)
    assert [row["rejection"] for row in rows] == [None, "NULL_DOCUMENT", "NULL_QUERY"]


def test_damaged_page_of_an_imported_shard_is_noticed(tmp_path: Path, tiny_tokenizer: Path) -> None:
    run_import(trec_source(tmp_path), tmp_path / "pairs")
    path = tmp_path / "pairs" / "pairs-00000.parquet"
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        assert file.read().num_rows == 3
        chunk = file.metadata.row_group(0).column(3)
        # The texts are in the dictionary page, which comes first.
        middle = chunk.dictionary_page_offset + chunk.total_compressed_size // 2
    content = bytearray(path.read_bytes())
    content[middle] ^= 0xFF
    path.write_bytes(content)
    config = load_config(
        None, (f"model.name={tiny_tokenizer}", "engine.method=fake", "executor.kind=local")
    )
    summary = run_job(config, [str(path)], str(tmp_path / "scored"), quiet=True)
    assert summary.num_rejected == {"UNREADABLE": 3}
