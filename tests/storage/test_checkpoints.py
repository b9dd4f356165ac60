"""Models in an object store: copied once to a machine, whole or not at all, and the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch import Scorer, load_config
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.engines import with_files_here
from rgpt_batch.errors import ConfigError, EngineStartError, ShardError, StorageError
from rgpt_batch.output import open_store
from rgpt_batch.scoring.model_files import check_converted, check_weights, model_identity, pinned
from rgpt_batch.scoring.tokenizer import load_tokenizer
from rgpt_batch.storage.checkpoints import digest_of, local_copy
from tests.jobs import fake_config, score
from tests.servers.faulty_proxy import Fault, FaultyProxy, Hold, Request, always, first

# More than one request's bytes, so that a file arrives in several.
WEIGHTS = bytes(range(256)) * (33 * 2**12)
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b'{"model": {}}',
    "model.safetensors": WEIGHTS,
}
COPY = "import sys; from rgpt_batch.storage.checkpoints import local_copy as copy; "
COPY += "copy(sys.argv[1], None, weights=True)"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RGPT_BATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def model(bucket: str, s3: Any, cache: Path) -> str:
    """The URI of a model."""
    for name, content in FILES.items():
        s3.put_object(Bucket=bucket, Key=f"llama/{name}", Body=content)
    return f"s3://{bucket}/llama"


def upload(s3: Any, bucket: str, folder: Path) -> str:
    for file in folder.iterdir():
        s3.put_object(Bucket=bucket, Key=f"{folder.name}/{file.name}", Body=file.read_bytes())
    return f"s3://{bucket}/{folder.name}"


def contents(folder: Path) -> dict[str, bytes]:
    """The files that an engine sees."""
    visible = (file for file in folder.iterdir() if not file.name.startswith("."))
    return {file.name: file.read_bytes() for file in visible}


def loads(proxy: FaultyProxy, part: str) -> list[Request]:
    return [each for each in proxy.requests if each.method == "GET" and part in each.path]


def test_a_model_is_copied_once_and_its_weights_only_where_they_are_wanted(
    model: str, proxy: FaultyProxy, cache: Path
) -> None:
    folder = local_copy(model, None, weights=False)
    small = {name: content for name, content in FILES.items() if content is not WEIGHTS}
    assert contents(folder) == small
    assert folder.parent == cache
    digest = folder.name
    assert local_copy(model, digest, weights=True) == folder
    assert contents(folder) == FILES
    assert len(loads(proxy, "tokenizer.json")) == 1
    proxy.restart_counting(always("GET", "", Fault.DENY))
    # What is here needs no store.
    assert local_copy(model, digest, weights=True) == folder
    assert proxy.requests == []


@pytest.mark.parametrize("fault", [Fault.CUT_REPLY, Fault.SLOW_DOWN, Fault.DROP_REQUEST])
def test_a_download_that_breaks_goes_on(model: str, proxy: FaultyProxy, fault: Fault) -> None:
    proxy.choose = first("GET", "model.safetensors", fault, fault)
    assert contents(local_copy(model, None, weights=True)) == FILES
    assert proxy.injected[fault] == 2


def test_half_a_download_is_no_model(
    model: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    digest = digest_of(model)

    def fails_later(request: Request) -> Fault | None:
        is_weights = request.method == "GET" and "model.safetensors" in request.path
        return Fault.CUT_REPLY if is_weights and request.number > 0 else None

    proxy.restart_counting(fails_later)
    for _ in range(2):
        with pytest.raises(StorageError, match="run the same command again"):
            local_copy(model, digest, weights=True)
    small = local_copy(model, digest, weights=False)
    assert "model.safetensors" not in contents(small)
    proxy.restart_counting(lambda request: None)
    assert contents(local_copy(model, digest, weights=True)) == FILES


def test_a_process_that_is_killed_in_the_middle_leaves_nothing_that_loads(
    model: str, proxy: FaultyProxy, cache: Path
) -> None:
    proxy.choose = hold = Hold("GET", "model.safetensors", 1)
    process = subprocess.Popen([sys.executable, "-c", COPY, model])
    try:
        assert hold.arrived.wait(60)
        process.kill()
        process.wait()
    finally:
        hold.end.set()
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert "model.safetensors" not in contents(folder)
    proxy.restart_counting(lambda request: None)
    assert local_copy(model, None, weights=True) == folder
    assert contents(folder) == FILES


def test_processes_that_start_together_copy_once(model: str, proxy: FaultyProxy) -> None:
    command = [sys.executable, "-c", COPY, model]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert len(loads(proxy, "config.json")) == 1
    # 33 MiB, in parts of 16.
    assert len(loads(proxy, "model.safetensors")) == 3
    assert contents(local_copy(model, None, weights=True)) == FILES


def test_a_model_that_was_replaced_is_not_loaded_for_the_old_job(
    model: str, bucket: str, s3: Any
) -> None:
    digest = digest_of(model)
    s3.put_object(Bucket=bucket, Key="llama/model.safetensors", Body=WEIGHTS[::-1])
    with pytest.raises(ConfigError, match="not those that the job was planned with"):
        local_copy(model, digest, weights=True)
    with pytest.raises(ConfigError, match="not those that the job was planned with"):
        pinned(ModelConfig(name=model, revision=digest))
    assert contents(local_copy(model, None, weights=True))["model.safetensors"] == WEIGHTS[::-1]


def test_a_model_that_is_replaced_while_it_is_copied_is_not_mixed(
    model: str, bucket: str, s3: Any, proxy: FaultyProxy
) -> None:
    def replace(request: Request) -> None:
        if request.method == "GET" and "tokenizer.json" in request.path:
            s3.put_object(Bucket=bucket, Key="llama/tokenizer.json", Body=b'{"model": {"a": 1}}')

    digest = digest_of(model)
    proxy.choose = replace
    with pytest.raises(ShardError, match=r"tokenizer\.json: the object was replaced"):
        local_copy(model, digest, weights=True)
    proxy.restart_counting(lambda request: None)
    with pytest.raises(ConfigError, match="not those that the job was planned with"):
        local_copy(model, digest, weights=True)


def test_what_no_engine_loads_does_not_count(model: str, bucket: str, s3: Any) -> None:
    digest = digest_of(model)
    for name in ("README.md", "pytorch_model.bin", "original/consolidated.safetensors"):
        s3.put_object(Bucket=bucket, Key=f"llama/{name}", Body=b"other")
    assert digest_of(model) == digest
    assert digest_of(f"{model}/") == digest
    s3.put_object(Bucket=bucket, Key="llama/merges.txt", Body=b"a b")
    assert digest_of(model) != digest


def test_pinning_is_done_once_and_says_what_the_model_is(model: str) -> None:
    found = pinned(ModelConfig(name=model))
    assert (found.name, found.tokenizer) == (model, model)
    assert found.revision == found.tokenizer_revision == digest_of(model)
    assert pinned(found) == found
    assert model_identity(found.name, found.revision) == f"objects:{found.revision}"


@pytest.mark.parametrize(
    ("name", "revision", "complaint"),
    [
        ("{model}", "main", "it has no revision 'main'; only models of the hub have"),
        ("{model}-not-there", None, r"there is no model \(no config.json or tokenizer.json\)"),
        ("hf://owner/name", None, "named owner/name, without hf://"),
        ("ftp://host/model", None, "unknown scheme"),
        ("s3://key:secret@bucket/model", None, "credentials"),
    ],
)
def test_what_cannot_be_a_model_is_refused(
    name: str, revision: str | None, complaint: str, model: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        pinned(ModelConfig(name=name.format(model=model), revision=revision))


def test_pickled_weights_and_other_layouts_are_refused_by_the_name_in_the_store(
    model: str, bucket: str, s3: Any
) -> None:
    s3.delete_object(Bucket=bucket, Key="llama/model.safetensors")
    s3.put_object(Bucket=bucket, Key="llama/pytorch_model.bin", Body=b"pickle")
    with pytest.raises(ConfigError, match=rf"model '{model}': its weights are pickled .*upload"):
        check_weights(ModelConfig(name=model))
    s3.put_object(Bucket=bucket, Key="llama/config.json", Body=b'{"model_type": "baichuan"}')
    complaint = f"{model}: holds Baichuan's layout, which no engine loads. Convert it once: copy"
    with pytest.raises(ConfigError, match=complaint):
        check_converted(ModelConfig(name=model))


def test_a_disk_that_is_too_small_is_named_before_anything_is_copied(
    model: str, proxy: FaultyProxy, cache: Path
) -> None:
    cache.parent.mkdir()
    cache.symlink_to("/proc")
    with pytest.raises(StorageError, match="let RGPT_BATCH_CACHE name another folder"):
        local_copy(model, None, weights=True)
    assert loads(proxy, "config.json") == []


def test_a_machine_that_cannot_copy_a_model_is_one_where_no_engine_starts(
    model: str, proxy: FaultyProxy
) -> None:
    """So that workers elsewhere go on; see Places."""
    config = load_config(None, (f"model.name={model}", "engine.method=query-rows"))
    proxy.choose = always("GET", "model.safetensors", Fault.DENY)
    with pytest.raises(EngineStartError, match="the store denies access"):
        with_files_here(config)
    proxy.restart_counting(lambda request: None)
    here = with_files_here(config).model
    assert contents(Path(here.name)) == FILES
    assert here.tokenizer == here.name


def test_a_job_with_a_model_in_a_store_resumes_with_it(
    bucket: str,
    s3: Any,
    cache: Path,
    tiny_tokenizer: Path,
    write_pairs: Callable[..., Path],
    tmp_path: Path,
) -> None:
    uri = upload(s3, bucket, tiny_tokenizer)
    pairs = write_pairs(20)
    config = fake_config(tiny_tokenizer, f"model.name={uri}", "units.max_rows=10")
    scored = score(config, [pairs], tmp_path / "scored")
    local = score(fake_config(tiny_tokenizer), [pairs], tmp_path / "local")
    assert scored.column("score") == local.column("score")
    next((tmp_path / "scored").glob("part-*.parquet")).unlink()
    (tmp_path / "scored" / "_SUCCESS").unlink()
    again = score(config, [pairs], tmp_path / "scored")
    assert again.summary.num_rows_scored == 10
    assert again.column("score") == local.column("score")
    manifest = open_store(str(tmp_path / "scored")).load_manifest()
    assert manifest is not None
    assert manifest.identity.scoring["model"] == f"objects:{digest_of(uri)}"


def test_a_model_in_a_store_scores_as_it_does_from_a_folder(
    bucket: str, s3: Any, cache: Path, tiny_llama: Path
) -> None:
    """Costs some seconds of CPU: transformers loads a tiny model twice."""
    pairs = [("when should a baby walk", "Most babies start to walk around 13 months.")]
    options = ("engine.method=transformers", "protocol.max_length=64")
    scores = []
    for name in (str(tiny_llama), upload(s3, bucket, tiny_llama)):
        config = load_config(None, (f"model.name={name}", *options))
        with Scorer(config) as scorer:
            scores.append(scorer.score(pairs)[0].score)
    assert scores[0] is not None
    assert scores[0] == scores[1]
    assert load_tokenizer(config.model).backend_tokenizer.encode("a").ids
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert os.path.getsize(folder / "model.safetensors") > 0
