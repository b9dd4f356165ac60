"""Which rows get an earlier score, and which must not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch import run_job, verify_output
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.scoring.score import SCORING_VERSION
from tests.jobs import Scored, column_chunk, fake_config, overwrite
from tests.models import save_tiny_tokenizer
from tests.reuse.marks import MARK, PAIRS, Run, is_marked, mark

WritePairs = Callable[..., Path]


@pytest.fixture
def old(run: Run, write_pairs: WritePairs) -> Scored:
    """A complete output of PAIRS whose scores on disk are marked; `table` holds the real ones."""
    scored = run(write_pairs(PAIRS, "old.parquet"), "old")
    mark(scored.folder)
    return scored


def test_unchanged_pairs_get_the_earlier_score_and_all_others_are_scored(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    changed = [(q, d + " now") if i % 4 == 0 else (q, d) for i, (q, d) in enumerate(PAIRS)]
    path = write_pairs([*changed, ("a new query", "a new document")], "new.parquet")
    fresh, reusing = run(path, "fresh"), run(path, "new", reuse=old.folder)
    expected = [i % 4 != 0 for i in range(20)] + [False]
    assert is_marked(reusing.column("score")) == expected
    assert [
        score - MARK if copied else score
        for score, copied in zip(reusing.column("score"), expected, strict=True)
    ] == pytest.approx(fresh.column("score"), abs=1e-4)
    assert reusing.table.drop(["score"]).equals(fresh.table.drop(["score"]))
    assert reusing.summary.num_reused == 15
    assert reusing.summary.exit_code == 0


def test_a_job_that_reuses_gives_the_same_rows_as_one_that_scores_all(
    run: Run, write_pairs: WritePairs
) -> None:
    overrides = ("output.query_token_logprobs=true", "protocol.max_length=40")
    old = run(write_pairs(PAIRS, "old.parquet"), "old", *overrides)
    new_pairs = [*reversed(PAIRS), ("", "x"), (None, "y"), ("z", None), ("query 7", "long " * 50)]
    path = write_pairs(new_pairs, "new.parquet")
    fresh, reusing = run(path, "fresh", *overrides), run(path, "new", *overrides, reuse=old.folder)
    assert reusing.table.equals(fresh.table)
    assert reusing.summary.num_reused == 20
    assert sum(filter(None, fresh.column("num_dropped_document_tokens"))) > 0
    assert verify_output(reusing.folder, num_rescored=10).problems == ()


def test_ids_do_not_matter_only_texts_do(old: Scored, run: Run, write_pairs: WritePairs) -> None:
    # Row 0 keeps its ids and gets another text; the others keep their texts under other ids.
    pairs = [("query 0", "another document"), *PAIRS[1:], PAIRS[5], PAIRS[5]]
    ids = ["d0", *(f"renamed{i}" for i in range(21))]
    reusing = run(write_pairs(pairs, "n.parquet", {"doc_id": ids}), "new", reuse=old.folder)
    assert is_marked(reusing.column("score")) == [False] + [True] * 21
    assert reusing.column("doc_id") == ids
    assert reusing.column("score")[-2:] == [reusing.column("score")[5]] * 2


def test_query_and_document_are_not_confused(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    swapped = [(document, query) for query, document in PAIRS]
    shifted = [(query + document[0], document[1:]) for query, document in PAIRS]
    reusing = run(write_pairs(swapped + shifted, "new.parquet"), "new", reuse=old.folder)
    assert reusing.summary.num_reused == 0
    assert not any(is_marked(reusing.column("score")))


def test_rejected_rows_are_tried_again(run: Run, write_pairs: WritePairs) -> None:
    pairs = [("", "empty"), (None, "null"), ("query", None), *PAIRS[:17]]
    old = run(write_pairs(pairs, "old.parquet"), "old")
    # As if two more rows had been rejected for something that has gone since.
    part = old.folder / "part-000000.parquet"
    table = pq.read_table(part)
    index = table.schema.get_field_index("score")
    pq.write_table(table.set_column(index, "score", pa.nulls(5, pa.float32())), part)
    reusing = run(write_pairs(pairs, "new.parquet"), "new", reuse=old.folder)
    assert reusing.table.equals(old.table)
    assert reusing.summary.num_reused == 15
    assert reusing.summary.num_rejected == {"EMPTY_QUERY": 1, "NULL_QUERY": 1, "NULL_DOCUMENT": 1}


@pytest.mark.parametrize(
    "overrides",
    [
        ("output.source=true", "units.max_rows=1"),
        ("output.pass_through=[note]",),
        ("input.columns.document=note",),
        ("engine.max_num_seqs=1",),
    ],
)
def test_input_columns_and_units_may_differ(
    old: Scored, run: Run, write_pairs: WritePairs, overrides: tuple[str, ...]
) -> None:
    notes = [document for _, document in PAIRS]
    path = write_pairs(PAIRS, "new.parquet", {"note": notes})
    reusing = run(path, "new", *overrides, reuse=old.folder)
    assert all(is_marked(reusing.column("score")))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("protocol.template='Passage: {document} Query:{query}'", "protocol.template"),
        ("protocol.max_length=16", "protocol.max_length: was 2048, is 16"),
        ("protocol.name=eval", "protocol.name: was card, is eval"),
        ("model.dtype=float32", "model.dtype: was auto, is float32"),
        ("engine.method=transformers", "engine.method: was fake, is transformers"),
        ("engine.vllm_args={quantization: fp8}", "engine.vllm_args"),
        ("engine.deterministic=true", "engine.deterministic: was (absent), is True"),
    ],
)
def test_scores_made_in_another_way_are_refused_with_what_differs(
    old: Scored, run: Run, write_pairs: WritePairs, override: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestMismatch, match="made in another way") as error:
        run(write_pairs(PAIRS, "new.parquet"), "new", override, reuse=old.folder)
    assert named in str(error.value)
    assert "input " not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_scores_of_another_tokenizer_are_refused(
    old: Scored, run: Run, write_pairs: WritePairs, tmp_path: Path
) -> None:
    other = save_tiny_tokenizer(tmp_path / "other")
    (other / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ManifestMismatch, match="tokenizer: was sha256:"):
        run(
            write_pairs(PAIRS, "new.parquet"),
            "new",
            f"model.tokenizer={other}",
            reuse=old.folder,
        )


def test_scores_of_a_release_that_scores_otherwise_are_refused(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    (plan,) = (old.folder / "_rgpt").glob("plan-*.json")
    manifest = json.loads(plan.read_text())
    manifest["identity"]["scoring"]["scoring.version"] = "0"
    plan.write_text(json.dumps(manifest))
    with pytest.raises(ManifestMismatch, match=rf"scoring\.version: was 0, is {SCORING_VERSION}"):
        run(write_pairs(PAIRS, "new.parquet"), "new", reuse=old.folder)


def test_an_unfinished_output_gives_what_it_has(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    (old.folder / "_SUCCESS").unlink()
    (old.folder / "part-000001.parquet").unlink()
    reusing = run(write_pairs(PAIRS, "new.parquet"), "new", reuse=old.folder)
    assert is_marked(reusing.column("score")) == [True] * 5 + [False] * 5 + [True] * 10


def test_an_output_without_any_file_gives_nothing(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    for part in old.folder.glob("part-*.parquet"):
        part.unlink()
    reusing = run(write_pairs(PAIRS, "new.parquet"), "new", reuse=old.folder)
    assert reusing.summary.num_reused == 0
    assert reusing.table.equals(old.table)


def test_an_output_made_by_reuse_can_be_reused(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    second = run(
        write_pairs([*PAIRS[:10], ("second", "job")], "2.parquet"), "second", reuse=old.folder
    )
    shutil.rmtree(old.folder)
    third = run(
        write_pairs([("third", "job"), ("second", "job"), *PAIRS], "3.parquet"),
        "third",
        reuse=second.folder,
    )
    assert third.summary.num_reused == 11
    assert is_marked(third.column("score")) == [False, False] + [True] * 10 + [False] * 10


def test_logprobs_per_token_are_copied_or_the_job_is_refused(
    run: Run, write_pairs: WritePairs
) -> None:
    path = write_pairs(PAIRS, "old.parquet")
    without, with_logprobs = (
        run(path, name, f"output.query_token_logprobs={name == 'with'}")
        for name in ("without", "with")
    )
    wanted = "output.query_token_logprobs=true"
    with pytest.raises(ConfigError, match="has no column query_token_logprobs"):
        run(path, "new", wanted, reuse=without.folder)
    reusing = run(path, "new", wanted, reuse=with_logprobs.folder)
    assert reusing.table.equals(with_logprobs.table)
    assert reusing.summary.num_reused == 20
    # The other way round nothing is missing.
    assert run(path, "plain", reuse=with_logprobs.folder).table.equals(without.table)


@pytest.mark.parametrize(
    "labels",
    ["{kind: classification, relevant: 0}", "{kind: label-tokens, relevant: a, not_relevant: b}"],
)
def test_logits_are_copied_with_their_scores(
    labels: str, run: Run, write_pairs: WritePairs
) -> None:
    prompt = "protocol={name: prompt, prompt: [{text: 'Q: {query} D: {document}'}]}"
    overrides = (prompt, f"score={labels}")
    old = run(write_pairs(PAIRS), "old", *overrides)
    extended = write_pairs([("what is new", "this is"), *PAIRS], "extended.parquet")
    reusing = run(extended, "new", *overrides, reuse=old.folder)
    assert reusing.summary.num_reused == len(PAIRS)
    compared = [name for name in old.table.column_names if name not in ("query_id", "doc_id")]
    assert "logit" in compared
    assert reusing.table.slice(1).select(compared).equals(old.table.select(compared))
    assert reusing.column("logit")[0] is not None


def test_an_output_without_hashes_is_refused(run: Run, write_pairs: WritePairs) -> None:
    path = write_pairs(PAIRS, "old.parquet")
    old = run(path, "old", "output.pair_hash=false")
    assert "pair_hash" not in old.table.column_names
    with pytest.raises(ConfigError, match="have no column pair_hash"):
        run(path, "new", reuse=old.folder)


def test_a_job_without_hashes_may_reuse(old: Scored, run: Run, write_pairs: WritePairs) -> None:
    path = write_pairs(PAIRS, "new.parquet")
    reusing = run(path, "new", "output.pair_hash=false", reuse=old.folder)
    assert all(is_marked(reusing.column("score")))
    assert "pair_hash" not in reusing.table.column_names


def test_the_output_folder_itself_is_refused(
    old: Scored, run: Run, write_pairs: WritePairs, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(old.folder)
    for name in (old.folder, tmp_path / "link", old.folder / ".." / "old"):
        with pytest.raises(ConfigError, match="--reuse names the output folder itself"):
            run(write_pairs(PAIRS, "new.parquet"), "old", reuse=name, on_change="overwrite")
    assert len(list(old.folder.glob("part-*.parquet"))) == 4


@pytest.mark.parametrize("name", ["missing", "pairs"])
def test_a_folder_without_a_job_is_refused(
    run: Run, write_pairs: WritePairs, tmp_path: Path, name: str
) -> None:
    path = write_pairs(PAIRS, "pairs/new.parquet")
    with pytest.raises(ConfigError, match="holds no job of rgpt-batch"):
        run(path, "new", reuse=tmp_path / name)


def test_a_damaged_file_is_named_and_nothing_of_it_is_reused(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    path = write_pairs(PAIRS, "new.parquet")
    part = old.folder / "part-000002.parquet"
    offset, num_bytes = column_chunk(part, 0, "score")
    # A flipped byte inside a page: the footer is well, only the page's checksum tells.
    overwrite(part, offset + num_bytes - 1, b"\xa5")
    with pytest.raises(ShardError, match=r"part-000002.parquet: not a readable .*Delete it"):
        run(path, "new", reuse=old.folder)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ShardError, match=r"part-000002.parquet: not a readable Parquet file"):
        run(path, "new", reuse=old.folder)
    part.unlink()
    assert run(path, "new", reuse=old.folder).summary.num_reused == 15


def test_a_file_of_another_job_is_named(old: Scored, run: Run, write_pairs: WritePairs) -> None:
    path = write_pairs(PAIRS, "new.parquet")
    other = run(path, "other", "protocol.max_length=9")
    shutil.copy(other.folder / "part-000003.parquet", old.folder / "part-000009.parquet")
    with pytest.raises(ShardError, match=r"part-000009.parquet: belongs to another job"):
        run(path, "new", reuse=old.folder)


def test_reuse_does_not_change_the_fingerprint(
    old: Scored, run: Run, write_pairs: WritePairs
) -> None:
    path = write_pairs(PAIRS, "new.parquet")
    reusing = run(path, "new", reuse=old.folder)
    # The same job without --reuse finds everything done.
    again = run(path, "new")
    assert (again.summary.num_rows_scored, again.summary.exit_code) == (0, 0)
    assert again.table.equals(reusing.table)
    assert again.summary.num_reused == 20


def test_records_tell_what_was_reused(old: Scored, run: Run, write_pairs: WritePairs) -> None:
    pairs = [*PAIRS[:14], *[("new", f"document {i}") for i in range(6)]]
    new = run(write_pairs(pairs, "new.parquet"), "new", reuse=old.folder).folder
    parts = sorted(new.glob("part-*.parquet"))
    assert [read_footer(str(part))[0].num_reused for part in parts] == [5, 5, 4, 0]
    success = json.loads((new / "_SUCCESS").read_text())
    assert success["num_reused"] == 14
    (record,) = (new / "_rgpt" / "runs").iterdir()
    recorded = json.loads(record.read_text())
    footer, _ = read_footer(str(old.folder / "part-000000.parquet"))
    assert recorded["reuse"] == {
        "output": str(old.folder),
        "fingerprint": footer.fingerprint,
        "num_files": 4,
        "num_rows": 20,
    }
    assert recorded["summary"]["num_reused"] == 14
    assert sum(unit["num_reused"] for unit in recorded["units"]) == 14
    status = json.loads((new / "_rgpt" / "status.json").read_text())
    assert status["num_reused"] == 14


def test_a_wrong_hash_in_an_output_is_found_by_verify(old: Scored) -> None:
    part = old.folder / "part-000001.parquet"
    table = pq.read_table(part)
    index = table.schema.get_field_index("pair_hash")
    rotated = table["pair_hash"].take(pa.array([1, 2, 3, 4, 0]))
    pq.write_table(table.set_column(index, "pair_hash", rotated), part, write_page_checksum=True)
    problems = verify_output(old.folder).problems
    assert any(
        problem.startswith(f"{part}: a pair_hash is not that of the input's texts.")
        for problem in problems
    )


@pytest.mark.parametrize(
    ("output", "reuse"), [("s3://bucket/scored", "old"), ("scored", "s3://bucket/old")]
)
def test_object_stores_are_refused_before_anything_is_asked_of_them(
    output: str, reuse: str, tiny_tokenizer: Path, write_pairs: Callable[..., Path]
) -> None:
    path = str(write_pairs(3))
    with pytest.raises(ConfigError, match="file system"):
        run_job(fake_config(tiny_tokenizer), [path], output, reuse=reuse, quiet=True)
