"""The systems that there are configurations for: what they take, and how their scores are tested.

Sizes are of the published architectures. The first thirteen are those of RankingGPT's paper
(arXiv 2311.16720).
"""

from __future__ import annotations

from dataclasses import dataclass

_BYTES_IN_16_BIT = 2

_WRITTEN = "a random model in the published layout, against float32 code written for it"
_TRANSFORMERS = "a random model in the published layout, against transformers in float32"


@dataclass(frozen=True, slots=True)
class System:
    """A published reranker.

    Attributes:
        name: As its paper or its publisher calls it.
        config: Name of its configuration.
        num_parameters: All that its weights hold.
        conversion: What `rgpt-batch convert` has to change; None where it loads as published.
        tested: What its scores are compared with. No published weights were at hand.
    """

    name: str
    config: str
    num_parameters: int
    conversion: str | None
    tested: str

    @property
    def num_bytes(self) -> int:
        """Size of the weights in 16 bit."""
        return self.num_parameters * _BYTES_IN_16_BIT


_T5 = "spiece.model, pickled weights"
SYSTEMS = (
    System("RankingGPT-bloom-560m", "bloom-560m", 559_000_000, None, _TRANSFORMERS),
    System("RankingGPT-bloom-1b1", "bloom-1b1", 1_065_000_000, None, _TRANSFORMERS),
    System("RankingGPT-bloom-3b", "bloom-3b", 3_003_000_000, None, _TRANSFORMERS),
    System("RankingGPT-bloom-7b", "bloom-7b", 7_069_000_000, None, _TRANSFORMERS),
    System(
        "RankingGPT-llama2-7b",
        "llama2-7b",
        6_738_000_000,
        "tokenizer.model, where there is no tokenizer.json",
        _WRITTEN,
    ),
    System(
        "RankingGPT-baichuan2-7b",
        "baichuan2-7b",
        7_506_000_000,
        "to Llama, tokenizer.model",
        _WRITTEN,
    ),
    System("RankingGPT-qwen-7b", "qwen-7b", 7_721_000_000, "to Qwen2, qwen.tiktoken", _WRITTEN),
    System("MonoBERT-340M", "monobert-340m", 335_000_000, "bare config, old names", _WRITTEN),
    System("MonoT5-220M", "monot5-220m", 223_000_000, _T5, _WRITTEN),
    System("MonoT5-770M", "monot5-770m", 738_000_000, _T5, _WRITTEN),
    System("MonoT5-3B", "monot5-3b", 2_852_000_000, _T5, _WRITTEN),
    System("RankT5-770M", "rankt5-770m", 738_000_000, _T5, _WRITTEN),
    System("RankLLaMA-7B", "rankllama-7b", 6_607_000_000, "adapter merged into Llama 2", _WRITTEN),
    System("bge-reranker-v2-m3", "bge-reranker-v2-m3", 568_000_000, None, _TRANSFORMERS),
    System("bge-reranker-v2-gemma", "bge-reranker-v2-gemma", 2_506_000_000, None, _TRANSFORMERS),
    System("Qwen3-Reranker-0.6B", "qwen3-reranker-0.6b", 596_000_000, None, _TRANSFORMERS),
    System("mxbai-rerank-base-v2", "mxbai-rerank-base-v2", 494_000_000, None, _TRANSFORMERS),
)
