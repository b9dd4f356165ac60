"""Engines start, end, start again, and say what is wrong where they cannot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rgpt_batch.engines import create_engine
from rgpt_batch.engines.vllm.engine import set_environment
from rgpt_batch.errors import EngineDead, EngineStartError
from tests.conftest import ROOT
from tests.engines.configs import MAX_LENGTH, METHODS, float32_config, open_engine
from tests.engines.pairs import PAIRS, TOLERANCE, make_pair
from tests.models import set_config

WITH_MODEL = METHODS[1:]


@pytest.mark.parametrize("method", METHODS)
def test_an_engine_starts_again_after_another_was_closed(method: str, tiny_llama: Path) -> None:
    config = float32_config(tiny_llama, method)
    answers = []
    for _ in range(2):
        engine = create_engine(config)
        answers.append(engine.score(PAIRS[:2]))
        engine.close()
        engine.close()
    for first, second in zip(*answers, strict=True):
        np.testing.assert_allclose(second.values, first.values, rtol=0, atol=TOLERANCE)


@pytest.mark.vllm
def test_an_engine_that_was_closed_leaves_cuda_graphs_to_the_next(tiny_llama: Path) -> None:
    # One start, 10 s on two cores. On CPU nothing captures graphs, so the test forbids them, as an
    # engine on a GPU does when it has captured its own.
    from vllm.compilation import monitor

    with open_engine(float32_config(tiny_llama)):
        monitor.set_cudagraph_capturing_enabled(False)
        with pytest.raises(RuntimeError, match="capturing"):
            monitor.validate_cudagraph_capturing_enabled()
    monitor.validate_cudagraph_capturing_enabled()


@pytest.mark.vllm
def test_an_engine_whose_steps_compute_nothing_does_not_wait_for_ever(tiny_llama: Path) -> None:
    # One start.
    scheduler = {"scheduler_cls": "tests.engines.idle_scheduler.IdleScheduler"}
    config = float32_config(tiny_llama, "query-rows", max_num_seqs=2, vllm_args=scheduler)
    with pytest.raises(EngineDead, match="steps have finished none"):
        create_engine(config)


@pytest.mark.vllm
def test_without_vllm_an_engine_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    # In a new process, which has not imported vLLM yet.
    (tmp_path / "vllm.py").write_text("raise ImportError('no vLLM is installed')")
    code = """
import sys
from pathlib import Path
from rgpt_batch.engines import create_engine
from rgpt_batch.errors import EngineDead, EngineStartError
from tests.engines.configs import float32_config

for method in ("query-rows", "token-ids", "prompt-logprobs"):
    try:
        create_engine(float32_config(Path(sys.argv[1]), method))
    except EngineStartError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_llama],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.count("no vLLM is installed") == 3, done.stderr


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove_one_of_two_files(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    index = {name: file for file, half in halves.items() for name in half}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    file, half = next(iter(halves.items()))
    save_file({name: tensors[name] for name in half}, folder / file, metadata={"format": "pt"})


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def set_unknown_architecture(folder: Path) -> None:
    set_config(folder, model_type="perceptron", architectures=["PerceptronForCausalLM"])


@pytest.mark.parametrize("method", WITH_MODEL)
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        pytest.param(remove_weights, "model.safetensors|any model weights", id="no weights"),
        pytest.param(cut_weights, "incomplete", id="half a file"),
        pytest.param(remove_one_of_two_files, "model-00002-of-00002.safetensors", id="half a set"),
        pytest.param(damage_config, "config.json", id="broken config"),
        pytest.param(set_unknown_architecture, "perceptron", id="unknown architecture"),
    ],
)
def test_a_damaged_model_folder_is_named_with_the_cause(
    method: str, damage: Callable[[Path], None], cause: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "damaged-model")
    damage(folder)
    with pytest.raises(EngineStartError, match=cause) as raised:
        create_engine(float32_config(folder, method))
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("method", WITH_MODEL)
def test_a_bloom_without_its_head_is_refused(
    method: str, tiny_bloom_with_head: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bloom_with_head, tmp_path / "headless")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineStartError, match=r"the checkpoint lacks .*lm_head\.weight"):
        create_engine(float32_config(folder, method))


@pytest.mark.vllm
def test_a_bloom_whose_head_contradicts_its_config_is_refused(
    tiny_bloom_with_head: Path, tmp_path: Path
) -> None:
    # vLLM looks into safetensors files itself and believes them; of pickled ones it knows nothing.
    folder = shutil.copytree(tiny_bloom_with_head, tmp_path / "contradiction")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    set_config(folder, tie_word_embeddings=True)
    with pytest.raises(EngineStartError, match="Set tie_word_embeddings to false"):
        create_engine(float32_config(folder, allow_pickled_weights=True))


@pytest.mark.parametrize("given", [None, "tf32"])
def test_triton_multiplies_float32_in_full_unless_the_user_says_otherwise(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_F32_DEFAULT", given or "")
    if given is None:
        monkeypatch.delenv("TRITON_F32_DEFAULT")
    set_environment()
    assert os.environ["TRITON_F32_DEFAULT"] == (given or "ieee")


@pytest.mark.vllm
def test_vllm_starts_after_a_failed_start(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "damaged-model")
    cut_weights(folder)
    with pytest.raises(EngineStartError):
        create_engine(float32_config(folder))
    with open_engine(float32_config(tiny_llama)) as engine:
        assert len(engine.score(PAIRS[:2])) == 2


@pytest.mark.vllm
def test_an_engine_scores_in_other_threads_than_the_one_that_started_it(tiny_llama: Path) -> None:
    # tests/engines/configs.py sets torch's number of threads; a new thread starts with OpenMP's.
    with open_engine(float32_config(tiny_llama)) as engine:
        expected = engine.score(PAIRS)
        for _ in range(2):
            with ThreadPoolExecutor(max_workers=1) as pool:
                found = pool.submit(engine.score, PAIRS).result()
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one.values, other.values, rtol=0, atol=TOLERANCE)


@pytest.mark.vllm
@pytest.mark.parametrize("method", ["prompt-logprobs", "query-rows"])
def test_the_longest_prompt_may_fill_the_model(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    set_config(folder, max_position_embeddings=MAX_LENGTH)
    pair = make_pair(MAX_LENGTH - 9, 9)
    with open_engine(float32_config(folder, "transformers")) as engine:
        expected = engine.score([pair])
    with open_engine(float32_config(folder, method)) as engine:
        got = engine.score([pair])
    np.testing.assert_allclose(got[0].values, expected[0].values, rtol=0, atol=TOLERANCE)
    set_config(folder, max_position_embeddings=MAX_LENGTH - 1)
    with pytest.raises(EngineStartError, match=r"Lower protocol\.max_length") as raised:
        create_engine(float32_config(folder, method))
    assert "(1024) is greater than" in str(raised.value)
