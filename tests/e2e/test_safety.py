"""What a job must not do: run code of a model, write elsewhere, tell secrets."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from rgpt_batch.engines import create_engine
from rgpt_batch.errors import ConfigError, EngineStartError, ManifestMismatch
from rgpt_batch.output import open_store
from rgpt_batch.scoring.tokenizer import load_tokenizer
from tests.e2e.jobs import Finish, Job
from tests.e2e.processes import rgpt_batch
from tests.engines.configs import float32_config
from tests.jobs import fake_config, score

CANARY = "canary-5f1d0c6e"
SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "RAY_AUTH_TOKEN",
)


class Payload:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="complete"),
        pytest.param(("-o", "engine.method=transformers"), id="engine does not start"),
        pytest.param(("--model", "/no/such/model"), id="no model"),
        pytest.param(("-o", "output.max_rejected_fraction=0"), id="too many rejections"),
    ],
)
def test_no_secret_of_the_environment_is_told_anywhere(
    options: tuple[str, ...], job: Job, finish: Finish, tmp_path: Path
) -> None:
    environment = dict.fromkeys(SECRETS, CANARY)
    output = tmp_path / "scored"
    _, said = finish(job.score(output, *options), environment=environment)
    _, verified = finish(rgpt_batch("verify", output), environment=environment)
    _, status = finish(rgpt_batch("status", output, "--json"), environment=environment)
    _, reported = finish(rgpt_batch("report", output), environment=environment)
    assert CANARY not in said + verified + status + reported
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_token_in_the_configuration_is_refused(job: Job, finish: Finish, tmp_path: Path) -> None:
    code, said = finish(job.score(tmp_path, "-o", f"engine.vllm_args={{hf_token: {CANARY}}}"))
    assert code == 2
    assert CANARY not in said
    assert "set HF_TOKEN" in said


def test_yaml_cannot_create_objects(job: Job, finish: Finish, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"model: !!python/object/apply:os.mkdir ['{tmp_path}/created']")
    code, said = finish(job.score(tmp_path / "scored", "-c", config))
    assert code == 2
    assert "not valid YAML" in said
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    "method",
    ["transformers", pytest.param("prompt-logprobs", marks=pytest.mark.vllm)],
)
def test_pickled_weights_run_no_code_where_they_are_allowed(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "executed"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(EngineStartError):
        create_engine(float32_config(folder, method, allow_pickled_weights=True))
    assert not marker.exists()
    # The control: the file does what it says.
    pickle.loads((folder / "pytorch_model.bin").read_bytes()).close()
    assert marker.exists()


@pytest.mark.parametrize(
    "method",
    ["transformers", *(pytest.param(m, marks=pytest.mark.vllm) for m in ("auto", "query-rows"))],
)
def test_pickled_weights_are_refused_unless_they_are_allowed(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="allow_pickled_weights=true") as raised:
        create_engine(float32_config(folder, method))
    assert str(folder) in str(raised.value)
    assert "pytorch_model.bin" in str(raised.value)
    create_engine(float32_config(folder, method, allow_pickled_weights=True)).close()


@pytest.mark.parametrize(
    "method",
    ["transformers", pytest.param("prompt-logprobs", marks=pytest.mark.vllm)],
)
def test_engines_read_safetensors_alone_whatever_lies_beside_them(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    marker = tmp_path / "executed"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    create_engine(float32_config(folder, method)).close()
    # Not even as the last resort.
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "other.safetensors").write_bytes(b"")
    with pytest.raises(EngineStartError):
        create_engine(float32_config(folder, method))
    assert not marker.exists()


def test_a_job_whose_weights_are_pickled_ends_with_the_option_that_allows_them(
    job: Job, finish: Finish, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    code, said = finish(
        job.score(tmp_path / "scored", "--model", folder, "-o", "engine.method=transformers")
    )
    assert code == 2
    assert "-o model.allow_pickled_weights=true" in said
    # Said before anything was written.
    assert not (tmp_path / "scored").exists()


def test_code_in_a_model_folder_is_not_run_unless_it_is_trusted(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder, marker = shutil.copytree(tiny_llama, tmp_path / "model"), tmp_path / "executed"
    (folder / "own.py").write_text(
        f"open({str(marker)!r}, 'w')\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "class OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = fake_config(folder)
    assert not config.model.trust_remote_code
    try:
        load_tokenizer(config.model)
    except ConfigError as error:
        assert "trust_remote_code" in str(error)
    assert not marker.exists()
    # The control: trusted, it runs.
    load_tokenizer(config.model.model_copy(update={"trust_remote_code": True}))
    assert marker.exists()


def test_names_of_columns_and_a_template_cannot_leave_the_output_folder(
    tiny_tokenizer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    name = "../../escaped"
    path = write_pairs(5, extra={name: pa.array(["x"] * 5)})
    config = fake_config(
        tiny_tokenizer,
        f"output.pass_through=['{name}']",
        "protocol.template='../../../{document}/../{query}'",
    )
    before = set(tmp_path.rglob("*"))
    output = tmp_path / "deep" / "er" / "scored"
    scored = score(config, [path], output)
    assert pq.read_schema(output / "part-000000.parquet").names[-1] == name
    assert scored.column(name) == ["x"] * 5
    written = set(tmp_path.rglob("*")) - before - {tmp_path / "deep", tmp_path / "deep" / "er"}
    assert all(path.is_relative_to(output) for path in written)


@pytest.mark.parametrize("unit_id", ["../000000", "000000/../../x", "/tmp/000000", ""])
def test_a_plan_whose_units_name_other_files_is_refused(
    unit_id: str, tiny_tokenizer: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    scored = score(fake_config(tiny_tokenizer), [write_pairs(5)], tmp_path / "scored")
    (plan,) = (scored.folder / "_rgpt").glob("plan-*.json")
    manifest = json.loads(plan.read_bytes())
    manifest["units"][0]["unit_id"] = unit_id
    plan.write_text(json.dumps(manifest))
    with pytest.raises(ManifestMismatch, match="not a plan of this version"):
        open_store(str(scored.folder)).load_manifest()
