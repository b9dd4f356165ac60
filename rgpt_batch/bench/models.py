"""Models of the published sizes on disk, and configurations that score with them."""

from __future__ import annotations

from pathlib import Path

from rgpt_batch.bench.hardware import default_dtype, has_gpu
from rgpt_batch.bench.shapes import TOKENIZER, ModelShape, find_shape, save_random_model
from rgpt_batch.config.load import load_config
from rgpt_batch.config.options import JobConfig

_MAX_BYTES_OF_TINY = 100 * 2**20


def random_model(
    name: str, cache: Path, options: tuple[str, ...] = ()
) -> tuple[ModelShape, JobConfig]:
    """Find or make a model with random weights.

    Args:
        name: Of a shape.
        cache: Folder for such models.
        options: `dotted.key=value` of the configuration.

    Returns:
        Its sizes, and a configuration in the dtype that suits this machine.

    Raises:
        ConfigError: There is no such shape, or an option is wrong.
    """
    shape = find_shape(name)
    # On a GPU vLLM makes weights up faster than a disk gives large ones.
    has_weights = not has_gpu() or shape.num_bytes < _MAX_BYTES_OF_TINY
    folder = cache / f"random-{name}{'' if has_weights else '-dummy'}"
    save_random_model(shape, folder, weights=has_weights)
    own = [f"model.name={folder}", f"model.tokenizer={folder / TOKENIZER}"]
    own += [f"model.dtype={default_dtype()}", *options]
    if not has_weights:
        own.append("engine.vllm_args.load_format=dummy")
    return shape, load_config(None, tuple(own))
