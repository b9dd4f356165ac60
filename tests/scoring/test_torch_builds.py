"""CUDA builds beside a CPU build of torch are named, going by what is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgpt_batch.config.options import JobConfig, ModelConfig
from rgpt_batch.engines.references import LikelihoodReference
from rgpt_batch.engines.vllm.engine import start_error
from rgpt_batch.errors import ConfigError, EngineStartError
from rgpt_batch.scoring.tokenizer import load_tokenizer
from rgpt_batch.scoring.torch_builds import wrong_builds


def install(folder: Path, **versions: str) -> None:
    """Put the metadata of packages into a folder, as pip does."""
    for name, version in versions.items():
        metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages go before those of this environment."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def torchvision_for_cuda(site: Path) -> None:
    install(site, torch="2.13.0+cpu", torchvision="0.28.0")


def test_cuda_builds_beside_a_cpu_torch_are_named_with_the_fix(site: Path) -> None:
    install(site, torch="2.13.0+cpu", torchvision="0.28.0", torchaudio="2.11.0")
    install(site, torchcodec="0.17.0+cpu")
    text = wrong_builds()
    assert text is not None
    assert "torch 2.13.0+cpu is a CPU build" in text
    assert "torchvision 0.28.0, torchaudio 2.11.0." in text
    assert "pip uninstall torchvision torchaudio (" in text


@pytest.mark.parametrize(
    "versions",
    [
        {"torch": "2.13.0+cpu"},
        {"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"},
        {"torch": "2.14.0", "torchvision": "0.29.0"},
        {"torch": "2.14.0+cu130", "torchvision": "0.29.0", "torchaudio": "2.11.0+cpu"},
    ],
)
def test_builds_that_fit_are_not(versions: dict[str, str], site: Path) -> None:
    install(site, **versions)
    assert wrong_builds() is None


@pytest.mark.usefixtures("torchvision_for_cuda")
def test_a_tokenizer_that_does_not_load_names_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pip uninstall torchvision"):
        load_tokenizer(ModelConfig(name=str(tmp_path / "none")))


@pytest.mark.usefixtures("torchvision_for_cuda")
def test_a_model_that_does_not_load_names_them(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="pip uninstall torchvision"):
        LikelihoodReference(ModelConfig(name=str(tmp_path / "none")))


@pytest.mark.usefixtures("torchvision_for_cuda")
def test_a_vllm_that_does_not_start_names_them_in_the_first_line() -> None:
    config = JobConfig.model_validate({"model": {"name": "some-model"}})
    error = start_error(config, RuntimeError("operator torchvision::nms does not exist"))
    # `auto` passes on the first line.
    assert "pip uninstall torchvision" in str(error).splitlines()[0]


def test_without_them_the_advice_is_about_the_model(site: Path, tmp_path: Path) -> None:
    install(site, torch="2.13.0+cpu")
    with pytest.raises(ConfigError, match=r"Check model\.name and model\.tokenizer\.$"):
        load_tokenizer(ModelConfig(name=str(tmp_path / "none")))
