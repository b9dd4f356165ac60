"""Files that are damaged, contradict each other or hold code are refused by name."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conversion.checkpoints import LLAMA, QWEN, llama_tensors, qwen_tensors, save
from tests.conversion.refusing import refused
from tests.conversion.vocabularies import write_json


class _Code:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    marker = tmp_path / "executed"
    tensors: dict[str, Any] = llama_tensors(LLAMA)
    source = save(tmp_path / "source", LLAMA, tensors, num_shards=1)
    file, content = source / "pytorch_model.bin", {**tensors, "code": _Code(marker)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    refused(source, r"pytorch_model\.bin: holds something other than tensors.*never run")
    assert not marker.exists()
    # The control: it is code.
    if form == "pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_file_that_is_cut_off_is_refused_by_name(tmp_path: Path, form: str, share: float) -> None:
    source = save(tmp_path / "source", LLAMA, llama_tensors(LLAMA), legacy=form == "legacy")
    file = source / "pytorch_model-00002-of-00002.bin"
    os.truncate(file, int(file.stat().st_size * share))
    refused(source, re.escape(str(file)))


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_safetensors_that_are_cut_off_are_refused_by_name(qwen: Path, share: float) -> None:
    for file in qwen.glob("pytorch_model*"):
        file.unlink()
    file = qwen / "model.safetensors"
    save_file(qwen_tensors(QWEN), file)
    os.truncate(file, int(file.stat().st_size * share))
    refused(qwen, re.escape(str(file)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.ones(2)], "holds a list, expected named tensors"),
        ({"epoch": 3, "w": torch.ones(2)}, "'epoch' is a int, expected a tensor. .* state_dict"),
        ({"state_dict": {"w": torch.ones(2)}}, "'state_dict' is a dict"),
        ({"w": torch.eye(3).to_sparse()}, "'w' is sparse"),
    ],
)
def test_file_of_something_else_than_named_tensors_isrefused(
    tmp_path: Path, content: Any, said: str
) -> None:
    source = save(tmp_path / "source", LLAMA, {}, num_shards=1)
    torch.save(content, source / "pytorch_model.bin")
    refused(source, said)


def test_shards_and_index_have_to_agree(tmp_path: Path) -> None:
    source = save(tmp_path / "source", LLAMA, llama_tensors(LLAMA))
    index = source / "pytorch_model.bin.index.json"
    listed = json.loads(index.read_text())
    first, second = (f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2))

    def change(name: str, file: str | None) -> None:
        weight_map = listed["weight_map"] | ({name: file} if file else {})
        if file is None:
            del weight_map[name]
        write_json(index, {"weight_map": weight_map})

    change("new.weight", first)
    refused(source, r"lacks 1 tensors that its index lists, such as 'new\.weight'")
    name = next(iter(listed["weight_map"]))
    change(name, second)
    refused(source, f"'{re.escape(name)}' is not where the index says")
    change(name, None)
    refused(source, f"'{re.escape(name)}' is not where the index says")
    change(name, "../elsewhere.bin")
    refused(source, "is not the name of a file beside it")
    change(name, "pytorch_model-00003-of-00003.bin")
    refused(source, r"names pytorch_model-00003-of-00003\.bin, which is not there")
    index.unlink()
    refused(source, r"holds pytorch_model-00001-of-00002\.bin, but no pytorch_model\.bin\.index")
    shutil.copyfile(source / first, source / "pytorch_model.bin")
    write_json(index, listed)
    refused(source, "holds both")


def test_tensor_that_two_shards_hold_isrefused(tmp_path: Path) -> None:
    tensors = llama_tensors(LLAMA)
    source = save(tmp_path / "source", LLAMA, tensors)
    file = source / "pytorch_model-00002-of-00002.bin"
    torch.save(
        {
            **torch.load(file),
            "lm_head.weight": tensors["lm_head.weight"],
            "model.norm.weight": tensors["model.norm.weight"],
        },
        file,
    )
    refused(source, "is in another file as well|is not where the index says")


@pytest.mark.parametrize("kind", ["baichuan", "qwen"])
def test_model_without_its_tokenizer_isrefused(kind: str, request: pytest.FixtureRequest) -> None:
    source: Path = request.getfixturevalue(kind)
    (source / ("tokenizer.model" if kind == "baichuan" else "qwen.tiktoken")).unlink()
    refused(source, "Download it")
