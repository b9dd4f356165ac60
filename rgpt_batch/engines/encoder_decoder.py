"""T5 rerankers (MonoT5, RankT5) with transformers, in padded batches. vLLM has no T5.

prompts   each distinct one once, the longest first
batches   up to engine.max_num_batched_tokens, padding included, and engine.max_num_seqs prompts
encoder   transformers'; padding is masked
decoder   its first token alone, see first_token.py

Where memory does not suffice for a batch, this batch and all later ones become half as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig, ModelConfig
from rgpt_batch.engines.base import Engine
from rgpt_batch.engines.distinct import score_distinct
from rgpt_batch.engines.first_token import first_token_logits
from rgpt_batch.engines.label_self_test import label_self_test
from rgpt_batch.engines.references import load_model
from rgpt_batch.errors import EngineDead, EngineStartError
from rgpt_batch.records import LabelLogits, LabelPrompt
from rgpt_batch.scoring.labels import label_ids

# Matrices whose sides are multiples of 8 are multiplied faster.
_MULTIPLE = 8
_MAX_TOKENS_GPU, _MAX_TOKENS_CPU = 8192, 1024


class EncoderDecoderEngine(Engine[LabelPrompt, LabelLogits]):
    """Computes the labels' logits of the decoder's first token.

    Attributes:
        max_num_batched_tokens: Tokens per batch, padding included. Becomes less when memory does
            not suffice.

    Raises:
        ConfigError: A label is no token.
        EngineStartError: The model cannot be loaded, is no T5, or contradicts itself.
    """

    method = "encoder-decoder"

    def __init__(self, config: JobConfig) -> None:
        import torch

        _check_options(config)
        _check_weights(config.model)
        self._labels = label_ids(config.model, config.score)
        share = _gpu_share(config)
        self._model: Any = load_model(
            "AutoModelForSeq2SeqLM", config.model, config.model.dtype, share=share
        )
        self._start = _start_token(self._model, config.model.name)
        _check_labels(config, self._labels, len(self._model.lm_head.weight))
        on_gpu = self._model.device.type == "cuda"
        if on_gpu:
            # Other workers of the GPU find theirs.
            torch.cuda.set_per_process_memory_fraction(share)
        self.max_num_batched_tokens: int = config.engine.max_num_batched_tokens or (
            _MAX_TOKENS_GPU if on_gpu else _MAX_TOKENS_CPU
        )
        # What a prompt is padded to, and so its last bits, depend on what else is in its batch.
        self._max_num_seqs = 1 if config.engine.deterministic else config.engine.max_num_seqs
        label_self_test(self, config, step_tokens=0)

    @override
    def score(self, pairs: Sequence[LabelPrompt]) -> list[LabelLogits]:
        found, _ = score_distinct(pairs, lambda prompts, _: self._score(prompts))
        return [LabelLogits(values=values) for values in found]

    def _score(self, prompts: Sequence[LabelPrompt]) -> list[npt.NDArray[np.float32]]:
        # The longest first: if memory does not suffice, that shows at once.
        waiting = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].token_ids))
        found: dict[int, npt.NDArray[np.float32]] = {}
        while waiting:
            length = _padded(len(prompts[waiting[0]].token_ids))
            size = max(1, min(self.max_num_batched_tokens // length, self._max_num_seqs))
            batch, rest = waiting[:size], waiting[size:]
            logits = self._logits([prompts[index].token_ids for index in batch], length)
            if logits is not None:
                found |= zip(batch, logits, strict=True)
                waiting = rest
            elif len(batch) > 1:
                self.max_num_batched_tokens = len(batch) // 2 * length
            else:
                raise EngineDead(
                    f"out of memory with one prompt of {length} tokens. Lower protocol.max_length, "
                    "or take a GPU or a machine with more memory."
                )
        return [found[index] for index in range(len(prompts))]

    def _logits(
        self, prompts: Sequence[npt.NDArray[np.int32]], length: int
    ) -> npt.NDArray[np.float32] | None:
        """Compute one batch; None where memory does not suffice."""
        import torch

        ids = np.zeros((len(prompts), length), dtype=np.int64)
        mask = np.zeros((len(prompts), length), dtype=np.bool_)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
            mask[row, : len(prompt)] = True
        device = self._model.device
        try:
            with torch.inference_mode():
                tokens, is_token = (torch.from_numpy(each).to(device) for each in (ids, mask))
                encoded = self._model.encoder(tokens, attention_mask=is_token).last_hidden_state
                logits = first_token_logits(
                    self._model, encoded, is_token, self._labels, self._start
                )
                values: npt.NDArray[np.float32] = logits.cpu().numpy()
                return values
        except Exception as error:
            if not _is_out_of_memory(error):
                raise EngineDead(f"transformers failed: {type(error).__name__}: {error}") from error
        # Out here nothing holds the failed batch's tensors any more.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @override
    def close(self) -> None:
        self._model = None


def _check_options(config: JobConfig) -> None:
    if config.engine.num_ranks > 1:
        raise EngineStartError(
            "engine encoder-decoder runs on one GPU. Set engine.tensor_parallel_size=1 and "
            "engine.pipeline_parallel_size=1."
        )
    if config.engine.vllm_args:
        raise EngineStartError(
            "engine encoder-decoder is not vLLM, so engine.vllm_args would change nothing. Leave "
            "them out."
        )


def _check_weights(model: ModelConfig) -> None:
    """Refuse quantised weights: the decoder's matrices are read here as they are."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except Exception:
        # Whoever loads the model says what is wrong.
        return
    if getattr(config, "quantization_config", None):
        raise EngineStartError(
            f"model '{model.name}' has quantised weights (quantization_config in config.json); "
            "engine encoder-decoder computes with plain ones. Take the checkpoint that it was made "
            "from."
        )


def _start_token(model: Any, name: str) -> int:
    if model.config.model_type != "t5":
        raise EngineStartError(
            f"model '{name}' is of type {model.config.model_type}; engine encoder-decoder computes "
            "T5 alone. Set engine.method=transformers, which is slow."
        )
    start = model.config.decoder_start_token_id
    if start is None:
        raise EngineStartError(
            f"model '{name}': its config.json has no decoder_start_token_id. T5's is 0: add it."
        )
    return int(start)


def _check_labels(config: JobConfig, labels: Sequence[int], num_rows: int) -> None:
    # A GPU would say no more than that its kernel failed.
    for label, number in zip(config.score.labels, labels, strict=True):
        if number >= num_rows:
            raise EngineStartError(
                f"score: label '{label}' has id {number:,}, but the head of model "
                f"'{config.model.name}' has only {num_rows:,} rows. Set model.tokenizer to the "
                "tokenizer that belongs to it."
            )


def _gpu_share(config: JobConfig) -> float:
    """Return which share of a GPU's memory this worker may take."""
    return config.engine.gpu_memory_utilization * min(config.executor.gpus_per_worker or 1.0, 1.0)


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether an allocation failed: on a GPU, in a library of it, or on a CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error).lower()
