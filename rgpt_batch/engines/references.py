"""The reference engines: transformers in float32, one pair at a time, one for each kind of score.

They repeat the published computation: no batching, no padding, no cache. They are slow, and the
other engines are checked against them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig, ModelConfig
from rgpt_batch.engines.base import AnyEngine, Engine
from rgpt_batch.engines.fit import check_loads
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import (
    Answer,
    LabelLogits,
    LabelPrompt,
    Prompt,
    QueryLogprobs,
    TokenizedPair,
)
from rgpt_batch.scoring.labels import label_ids
from rgpt_batch.scoring.torch_builds import wrong_builds

_PromptT = TypeVar("_PromptT", bound=Prompt)
_AnswerT = TypeVar("_AnswerT", bound=Answer)


def create_reference(config: JobConfig) -> AnyEngine:
    """Load the reference engine of the configured kind of score.

    Raises:
        EngineStartError: The model cannot be loaded, its checkpoint is not complete, or it has
            fewer positions than prompts may have tokens.
        ConfigError: It has no such label.
    """
    engine: _Reference[Any, Any]
    match config.score.kind:
        case "query-likelihood":
            engine = LikelihoodReference(config.model)
        case "classification":
            engine = ClassificationReference(config)
        case "label-tokens":
            engine = LabelTokensReference(config)
        case "seq2seq":
            engine = Seq2SeqReference(config)
    engine.require_positions(config.protocol.max_tokens)
    return engine


class _Reference(Engine[_PromptT, _AnswerT], Generic[_PromptT, _AnswerT]):
    """Feeds every pair to the model by itself."""

    method = "transformers"

    def __init__(self, auto_class: str, config: ModelConfig) -> None:
        self._model: Any = load_model(auto_class, config, "float32")

    def require_positions(self, max_tokens: int) -> None:
        """Raise EngineStartError where the model has fewer positions.

        Most models with rotary positions would go on behind their last one, and be wrong.
        """
        positions = num_positions(self._model.config)
        if positions is not None and positions < max_tokens:
            self.close()
            raise EngineStartError(
                f"the model has {positions} positions, and protocol.max_length allows prompts of "
                f"{max_tokens} tokens. Set protocol.max_length={positions}."
            )

    @override
    def score(self, pairs: Sequence[_PromptT]) -> list[_AnswerT]:
        import torch

        with torch.inference_mode():
            return [self._score(pair, self._tokens(pair)) for pair in pairs]

    @abstractmethod
    def _score(self, pair: _PromptT, tokens: Any) -> _AnswerT:
        """Answer one pair; its token ids are where the model is, int64 (1, num_tokens)."""

    def _tokens(self, pair: _PromptT) -> Any:
        import torch

        return torch.from_numpy(pair.token_ids.astype(np.int64))[None].to(self._model.device)

    @override
    def close(self) -> None:
        self._model = None


class LikelihoodReference(_Reference[TokenizedPair, QueryLogprobs]):
    """Logprobs of query tokens.

    Source: RankingGPT (arXiv 2311.16720), model card.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__("AutoModelForCausalLM", config)

    @override
    def _score(self, pair: TokenizedPair, tokens: Any) -> QueryLogprobs:
        import torch

        # Position t predicts token t + 1, so the last token is not fed.
        output = self._model(tokens[:, :-1], logits_to_keep=pair.num_query_tokens, use_cache=False)
        logprobs = torch.log_softmax(output.logits[0].float(), dim=-1)
        values = logprobs.gather(1, tokens[0, pair.query_start :, None])[:, 0]
        return QueryLogprobs(values=values.cpu().numpy())


class ClassificationReference(_Reference[LabelPrompt, LabelLogits]):
    """Logits of a classification head, at the model's own place: [CLS], or the last token."""

    def __init__(self, config: JobConfig) -> None:
        super().__init__("AutoModelForSequenceClassification", config.model)
        self._labels = head_rows(config, int(self._model.config.num_labels))
        self._has_types = int(getattr(self._model.config, "type_vocab_size", 0) or 0) > 1

    @override
    def _score(self, pair: LabelPrompt, tokens: Any) -> LabelLogits:
        import torch

        types = {}
        if self._has_types:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
            first_len = tokens.shape[1] if pair.second_segment is None else pair.second_segment
            types = {"token_type_ids": (positions >= first_len).long()}
        # Causal models are read at the last token that is not padding. No prompt is padded, so
        # whatever is its last token is that one.
        self._model.config.pad_token_id = 1 if int(tokens[0, -1]) == 0 else 0
        logits = self._model(tokens, attention_mask=torch.ones_like(tokens), **types).logits
        return _answer(logits[0, self._labels])


class LabelTokensReference(_Reference[LabelPrompt, LabelLogits]):
    """Logits of two tokens of the vocabulary behind the prompt."""

    def __init__(self, config: JobConfig) -> None:
        super().__init__("AutoModelForCausalLM", config.model)
        self._labels = label_ids(config.model, config.score)

    @override
    def _score(self, pair: LabelPrompt, tokens: Any) -> LabelLogits:
        logits = self._model(tokens, logits_to_keep=1, use_cache=False).logits
        return _answer(logits[0, -1, self._labels])


class Seq2SeqReference(_Reference[LabelPrompt, LabelLogits]):
    """Logits of a decoder's first token.

    Source: MonoT5 (castorini/pygaggle, rerank/transformer.py); RankT5 (arXiv 2210.10634).
    """

    def __init__(self, config: JobConfig) -> None:
        super().__init__("AutoModelForSeq2SeqLM", config.model)
        self._labels = label_ids(config.model, config.score)

    @override
    def _score(self, pair: LabelPrompt, tokens: Any) -> LabelLogits:
        import torch

        start = self._model.config.decoder_start_token_id
        logits = self._model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            decoder_input_ids=torch.full((1, 1), start, device=tokens.device),
            use_cache=False,
        ).logits
        return _answer(logits[0, 0, self._labels])


def load_model(auto_class: str, config: ModelConfig, dtype: str, *, share: float = 1.0) -> Any:
    """Load a model with transformers, on a GPU where there is one.

    Args:
        auto_class: Name of a class of transformers, such as AutoModelForCausalLM.
        config: Which model.
        dtype: Name of a torch dtype, or auto.
        share: What it may take of a GPU's memory.

    Raises:
        EngineStartError: It cannot be loaded, does not fit, or its checkpoint is not complete.
    """
    import torch
    import transformers

    has_head = auto_class != "AutoModelForSequenceClassification"
    check_loads(config, dtype, with_head=has_head, share=share)

    try:
        model, loading = getattr(transformers, auto_class).from_pretrained(
            config.name,
            revision=config.revision,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=None if config.allow_pickled_weights else True,
            output_loading_info=True,
        )
    except Exception as error:
        # safetensors, pickle and remote code raise exceptions of their own.
        cause = ". ".join(filter(None, [str(error).rstrip("."), wrong_builds()]))
        raise EngineStartError(f"cannot load model '{config.name}': {cause}") from error
    if missing := sorted(loading["missing_keys"]):
        # transformers would go on with random numbers in their place.
        raise EngineStartError(
            f"model '{config.name}': the checkpoint lacks {len(missing)} tensors, such as "
            f"{missing[0]}. Download or convert it again."
        )
    if model.config.model_type == "t5":
        _check_head(model, config.name)
    if getattr(model.config, "attn_logit_softcapping", None):
        # torch's attention, the default, leaves Gemma 2's soft cap out without a word.
        model.set_attn_implementation("eager")
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def num_positions(hf_config: Any) -> int | None:
    """Return how many tokens a prompt may have; None where nothing limits it, or nobody knows.

    T5 and Bloom have no table of positions. Rotary positions that are stretched reach further than
    the number that config.json gives.
    """
    text_config = hf_config.get_text_config()
    rope = getattr(text_config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        return None
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa's first positions belong to padding.
    is_roberta = "roberta" in text_config.model_type
    return int(positions) - (text_config.pad_token_id + 1 if is_roberta else 0)


def _check_head(model: Any, name: str) -> None:
    """Refuse a T5 whose config and checkpoint disagree on whether it has a head of its own.

    transformers 5 goes by the checkpoint for the head, and by the config for a factor before it.

    Raises:
        EngineStartError: They do.
    """
    has_head = model.lm_head.weight is not model.shared.weight
    if has_head == model.config.scale_decoder_outputs:
        found = (
            "ties the head to the embeddings, but the checkpoint's lm_head.weight differs from them"
            if has_head
            else "asks for a head of its own, but the checkpoint has no other lm_head.weight"
        )
        raise EngineStartError(
            f"model '{name}': its config (tie_word_embeddings) {found}. One of the two is wrong: "
            "download both again."
        )


def head_rows(config: JobConfig, num_labels: int) -> list[int]:
    """Return the rows of a classification head that are read.

    Raises:
        EngineStartError: It has fewer.
    """
    rows = [int(label) for label in config.score.labels]
    if max(rows) >= num_labels:
        raise EngineStartError(
            f"model '{config.model.name}' has {num_labels} labels, counted from 0, and no label "
            f"{max(rows)}. Set score.relevant and score.not_relevant to labels that it has."
        )
    return rows


def _answer(logits: Any) -> LabelLogits:
    values: npt.NDArray[np.float32] = logits.float().cpu().numpy()
    return LabelLogits(values=values)
