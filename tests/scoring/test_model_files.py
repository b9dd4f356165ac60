"""What identifies a model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.model_files import (
    check_tokenizer,
    check_weights,
    model_identity,
    pinned,
    tokenizer_rule,
)
from tests.commands.start import rgpt_batch, run

# Above the size up to which files are hashed whole.
LARGE_BYTES = 40 * 2**20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "merges.txt").write_text("a b")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    return folder


def _identity(folder: Path) -> str:
    return model_identity(str(folder), None)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "merges.txt", "model.safetensors"]
)
def test_changed_file_changes_the_identity(model: Path, name: str) -> None:
    before = _identity(model)
    content = bytearray((model / name).read_bytes())
    content[len(content) // 2] ^= 1
    (model / name).write_bytes(content)
    assert _identity(model) != before


@pytest.mark.parametrize("name", ["adapter_model.bin", "model.pt", "modeling.py", "vocab.tiktoken"])
def test_added_file_changes_the_identity(model: Path, name: str) -> None:
    before = _identity(model)
    (model / name).touch()
    assert _identity(model) != before


def test_renamed_file_changes_the_identity(model: Path) -> None:
    before = _identity(model)
    (model / "merges.txt").rename(model / "mergez.txt")
    assert _identity(model) != before


def test_a_name_that_is_not_utf_8_counts_too(model: Path) -> None:
    before = _identity(model)
    Path(os.fsdecode(os.fsencode(model) + b"/caf\xe9.json")).write_text("{}")
    assert _identity(model) != before


def test_folder_with_equal_content_has_the_same_identity(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "config.json").touch()
    assert _identity(copy) == _identity(model)
    assert _identity(model).startswith("sha256:")


def test_links_as_in_the_hub_cache_count_as_files(model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for file in model.iterdir():
        (linked / file.name).symlink_to(file)
    assert _identity(linked) == _identity(model)


def test_files_that_no_library_loads_do_not_count(model: Path) -> None:
    before = _identity(model)
    (model / "README.md").write_text("new")
    (model / ".gitattributes").write_text("new")
    (model / "original").mkdir()
    (model / "original" / "params.json").write_text("{}")
    assert _identity(model) == before


@pytest.mark.parametrize("position", [0, LARGE_BYTES - 1])
def test_both_ends_of_a_large_file_count(model: Path, position: int) -> None:
    weights = model / "model.safetensors"
    with weights.open("wb") as stream:
        stream.truncate(LARGE_BYTES)
    before = _identity(model)
    with weights.open("r+b") as stream:
        stream.seek(position)
        stream.write(b"\1")
    assert _identity(model) != before


def test_training_step_on_large_weights_changes_the_identity(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(bytes(LARGE_BYTES))
    before = _identity(model)
    weights.write_bytes(b"\0" * 99 + (b"\1" * (LARGE_BYTES - 99)))
    assert _identity(model) != before


def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=f"{tmp_path}: the folder holds no model"):
        _identity(tmp_path)


def test_hub_model_is_identified_by_its_commit() -> None:
    assert model_identity("org/name", "abc123") == "hub:org/name@abc123"


def test_pinning_makes_folders_absolute(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    config = pinned(ModelConfig(name="model"))
    assert config.name == config.tokenizer == str(model)
    assert config.revision is config.tokenizer_revision is None
    assert pinned(config) == config


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such/folder", "./model.gguf"])
def test_name_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no such folder, and not a hub id"):
        pinned(ModelConfig(name=name))


def test_hub_model_that_is_not_cached_is_refused_offline_with_advice() -> None:
    with pytest.raises(ConfigError, match="Check the name, the network, and HF_TOKEN"):
        pinned(ModelConfig(name="rgpt-batch-tests/never-published"))


def _replace_weights(model: Path, *names: str) -> ModelConfig:
    (model / "model.safetensors").unlink()
    for name in names:
        (model / name).touch()
    return ModelConfig(name=str(model))


def test_pickled_weights_are_refused_with_their_names_and_the_fix(model: Path) -> None:
    names = [f"pytorch_model-0000{i}-of-00004.bin" for i in range(1, 5)]
    config = _replace_weights(model, *names)
    with pytest.raises(ConfigError) as raised:
        check_weights(config)
    assert str(raised.value) == (
        f"model '{model}': its weights are pickled ({', '.join(names[:3])}, …), and there are no "
        f"safetensors. Convert them once: rgpt-batch convert {model} {model}-converted. Or set "
        "-o model.allow_pickled_weights=true to read them with torch's restricted unpickler."
    )
    check_weights(config.model_copy(update={"allow_pickled_weights": True}))


@pytest.mark.parametrize("names", [("model-1-of-2.safetensors", "training_args.bin"), ()])
def test_a_checkpoint_without_pickled_weights_alone_is_left_to_the_engine(
    model: Path, names: tuple[str, ...]
) -> None:
    check_weights(_replace_weights(model, *names))


def test_pickled_weights_of_a_hub_model_are_found_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "pytorch_model.bin").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"model 'org/name': .*pytorch_model\.bin"):
        check_weights(ModelConfig(name="org/name", revision="abc123"))
    check_weights(ModelConfig(name="org/unknown", revision="abc123"))


def test_sentencepiece_alone_is_found_in_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "tokenizer.model").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"'org/name': tokenizer\.model without tokenizer\.json"):
        check_tokenizer("org/name", "abc123")
    (snapshot / "tokenizer.json").touch()
    check_tokenizer("org/name", "abc123")
    check_tokenizer("org/unknown", "abc123")


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, {"tokenizer.ids": "tokenizer.json"}),
        ({"tokenizer_class": "GPT2TokenizerFast"}, {"tokenizer.ids": "tokenizer.json"}),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {}),
        ({"tokenizer_class": "TokenizersBackend"}, {}),
        ({"tokenizer_class": None}, {}),
        ({"add_bos_token": False}, {}),
        (None, {}),
    ],
)
def test_class_that_had_other_rules_once_gives_the_identity_a_line(
    model: Path, settings: dict[str, object] | None, rule: dict[str, str]
) -> None:
    if settings is not None:
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
    assert tokenizer_rule(str(model), None) == rule


@pytest.mark.parametrize("text", ["[]", "null", '"LlamaTokenizer"', "{", "\udcff"])
def test_settings_of_a_tokenizer_that_make_no_sense_are_an_error(model: Path, text: str) -> None:
    path = model / "tokenizer_config.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json: .*Write it again"):
        tokenizer_rule(str(model), None)


def test_settings_of_a_hub_tokenizer_are_found_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert tokenizer_rule("org/name", None) == {"tokenizer.ids": "tokenizer.json"}


def test_a_hub_that_cannot_be_reached_is_an_error_that_says_so() -> None:
    """Takes some 3 s: what the hub's library reads when it is imported asks for a new process."""
    command = rgpt_batch("try", "a query", "a document", "--model", "someone/no-such-model")
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = run(command, environment=nowhere, fresh=True)
    assert done.returncode == 2, done.stderr
    assert "someone/no-such-model" in done.stderr and "the network" in done.stderr
    assert "Traceback" not in done.stderr
