"""What is measured against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rgpt_batch.config.options import JobConfig

# One pair at a time, as the model card does; padded batches of 8, as eval.py does.
CARD = "card"
EVAL = "eval"
# The whole job, Parquet to Parquet through Ray, with query-rows.
PIPELINE = "pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to the score.

    Attributes:
        method: CARD, EVAL, PIPELINE or a value of engine.method.
        num_engines: Processes that share the device and the pairs.
        engine: Options of the configuration's engine section.
        dtype: Instead of the configuration's.
        shares_documents: Whether more queries per document can make it faster.
    """

    name: str
    method: str
    num_engines: int = 1
    engine: dict[str, Any] = field(default_factory=dict)
    shares_documents: bool = False
    dtype: str | None = None

    def configure(self, config: JobConfig, num_engines: int) -> JobConfig:
        """Return the configuration with this variant's engine options.

        Args:
            config: Model, dtype and engine options that all variants share.
            num_engines: How many, of all variants, share the device's memory.
        """
        settings = config.model_dump()
        settings["engine"] |= self.engine
        settings["engine"]["vllm_args"] = {
            **config.engine.vllm_args,
            **self.engine.get("vllm_args", {}),
        }
        settings["engine"]["gpu_memory_utilization"] /= num_engines
        settings["model"]["dtype"] = self.dtype or config.model.dtype
        if self.method not in (CARD, EVAL):
            settings["engine"]["method"] = "query-rows" if self.method == PIPELINE else self.method
        return JobConfig.model_validate(settings)


def _query_rows(name: str, **settings: Any) -> Variant:
    return Variant(name=name, method="query-rows", shares_documents=True, **settings)


STANDARD = (
    Variant(name=CARD, method=CARD),
    Variant(name=EVAL, method=EVAL),
    Variant(name="prompt-logprobs", method="prompt-logprobs"),
    Variant(name="token-ids", method="token-ids", shares_documents=True),
    _query_rows("query-rows"),
    Variant(name=PIPELINE, method=PIPELINE, shares_documents=True),
)
# What may matter on a GPU that one engine does not fill.
TUNING = (
    _query_rows("query-rows, no cache", engine={"prefix_caching": False}),
    # As requests, which vLLM's own scheduler plans.
    _query_rows("query-rows, requests", engine={"vllm_args": {"async_scheduling": False}}),
    _query_rows("query-rows, requests, async", engine={"vllm_args": {"async_scheduling": True}}),
    _query_rows("query-rows, 2 engines", num_engines=2),
    _query_rows("query-rows, 1024 prompts", engine={"max_num_seqs": 1024}),
    _query_rows("query-rows, steps of 16384", engine={"max_num_batched_tokens": 16384}),
    _query_rows(
        "query-rows, steps of 32768",
        engine={"max_num_batched_tokens": 32768, "max_num_seqs": 1024},
    ),
)
VARIANTS = {variant.name: variant for variant in (*STANDARD, *TUNING)}


def groups(variants: Sequence[Variant], *, all_fit: bool) -> list[list[Variant]]:
    """Split into those that are loaded together, and take turns.

    Args:
        variants: What to measure.
        all_fit: Whether variants of tuning may be in memory together: each has a cache of a given
            size.

    Returns:
        First those that compare with each other, maybe none; then, for every other variant,
        query-rows and it alone: engines that divide a GPU's memory need few to divide it, and the
        pipeline starts engines of its own.
    """
    alone = [each for each in variants if each.method == PIPELINE]
    if not all_fit:
        alone += [each for each in variants if each in TUNING]
    together = [each for each in variants if each not in alone]
    reference = VARIANTS["query-rows"]
    if reference not in together and any(each in TUNING for each in together):
        together.insert(0, reference)
    return [together, *([reference, variant] for variant in alone)]
