"""The configuration of a job: YAML in, validated and frozen pydantic models out.

Every option stands here with its unit and its default. Unknown keys are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from rgpt_batch.config.executor import ExecutorConfig
from rgpt_batch.config.prompts import PositiveInt, ProtocolConfig, ScoreConfig, ScoreKind
from rgpt_batch.config.section import Section
from rgpt_batch.config.settings import set_option
from rgpt_batch.config.validation import validated
from rgpt_batch.config.watch import WatchConfig

EngineMethod = Literal[
    "auto",
    "query-rows",
    "token-ids",
    "prompt-logprobs",
    "pooling",
    "encoder-decoder",
    "transformers",
    "fake",
]

# What computes each kind of score, fastest first; transformers and fake compute all.
ENGINES: dict[ScoreKind, tuple[EngineMethod, ...]] = {
    "query-likelihood": ("query-rows", "token-ids", "prompt-logprobs"),
    "classification": ("pooling",),
    "label-tokens": ("pooling",),
    "seq2seq": ("encoder-decoder",),
}


class ModelConfig(Section):
    """Which weights and which tokenizer."""

    name: str = Field(
        description="Folder, hub id, or URI of a folder (s3://, gs://, abfs://). In a file, a "
        "folder that begins with ./ or ../, or lies beside the file, counts from there."
    )
    revision: str | None = Field(None, description="Hub commit, tag or branch.")
    tokenizer: str | None = Field(
        None, description="Folder, hub id or URI, as name. Default: the model's."
    )
    tokenizer_revision: str | None = Field(None, description="Default: the model's revision.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of weights and activations; auto is the checkpoint's own."
    )
    trust_remote_code: bool = Field(False, description="Run Python code from the model repository.")
    allow_pickled_weights: bool = Field(False, description="Read *.bin where nothing else is.")

    @property
    def tokenizer_source(self) -> tuple[str, str | None]:
        """Name and revision of the tokenizer."""
        if self.tokenizer is None:
            return self.name, self.tokenizer_revision or self.revision
        return self.tokenizer, self.tokenizer_revision


class ColumnNames(Section):
    """Names of input columns; unset ones are found by their usual aliases."""

    query_id: str | None = Field(None, description="Aliases: query_id, qid, query-id.")
    doc_id: str | None = Field(None, description="Aliases: doc_id, docno, docid, pid, corpus-id.")
    query: str | None = Field(None, description="Aliases: query, query_text.")
    document: str | None = Field(None, description="Aliases: document, text, passage, doc.")


class InputConfig(Section):
    """How shards are read."""

    columns: ColumnNames = ColumnNames()
    missing: Literal["error", "reject"] = Field(
        "error",
        description="Where texts come from tables of their own: what to do about pairs whose query "
        "or document is unknown. error: score nothing; reject: NULL_QUERY or NULL_DOCUMENT.",
    )
    join_memory_gib: float = Field(
        2.0,
        ge=0.25,
        description="Memory for joining such tables, and for changing the order of rows, GiB; more "
        "spills to disk.",
    )


class OutputConfig(Section):
    """What the scored files hold beside ids and scores."""

    pass_through: tuple[str, ...] = Field((), description="Input columns to copy.")
    query_token_logprobs: bool = Field(False, description="Add one logprob per query token.")
    source: bool = Field(False, description="Add the input file and the row's index in it.")
    pair_hash: bool = Field(
        True, description="Add 16 bytes per row by which `score --reuse` knows the pair again."
    )
    max_rejected_fraction: float = Field(
        0.1, ge=0, le=1, description="Share of rejected rows above which the job exits with 3."
    )
    order: Literal["units", "input"] = Field(
        "units",
        description="Where units.order has clustered rows. units: as they stand in the units, with "
        "the input file and the row's index; input: brought back into input order at the end.",
    )


class EngineConfig(Section):
    """What computes logprobs and logits."""

    method: EngineMethod = Field(
        "auto",
        description="auto: the first that works of query-rows, token-ids, prompt-logprobs; for "
        "other kinds of score pooling or encoder-decoder.",
    )
    tensor_parallel_size: PositiveInt = Field(
        1, description="GPUs that share one engine: each has a part of every layer."
    )
    pipeline_parallel_size: PositiveInt = Field(
        1,
        description="GPUs of one engine that follow each other: each has some of the layers. A "
        "worker then takes tensor_parallel_size times as many.",
    )
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory, for all workers that share the GPU."
    )
    kv_cache_bytes: PositiveInt | None = Field(
        None, description="Bytes of KV cache. Default: what gpu_memory_utilization leaves."
    )
    max_num_seqs: PositiveInt = Field(256, description="Prompts per engine step.")
    max_num_batched_tokens: PositiveInt | None = Field(
        None, description="Prompt tokens per engine step. Default: 8192 on GPUs, 1024 on CPU."
    )
    prefix_caching: bool | None = Field(
        None,
        description="Compute the beginning that prompts share once: with query-rows and token-ids "
        "the document, for all its queries in a unit; with pooling the words of the prompt. "
        "Default: where the input's documents have more than one query; with pooling always.",
    )
    enforce_eager: bool = Field(False, description="No CUDA graphs, no compilation.")
    deterministic: bool = Field(
        False,
        description="The same bits of a score whatever else is in its batch: one prompt at a time "
        "on CPUs and with T5, vLLM's batch-invariant kernels on GPUs, no prefix cache. Slower.",
    )
    vllm_args: dict[str, Any] = Field(
        {}, description="Further vllm.EngineArgs, for example {quantization: fp8}."
    )
    fake_seconds_per_pair: float = Field(0.0, ge=0, description="How long the fake engine works.")

    @field_validator("vllm_args")
    @classmethod
    def _no_credentials(cls, vllm_args: dict[str, Any]) -> dict[str, Any]:
        if "hf_token" in vllm_args:
            raise ValueError("must not hold hf_token: configurations are recorded; set HF_TOKEN")
        return vllm_args

    @field_validator("vllm_args")
    @classmethod
    def _no_other_way_to_share_an_engine(cls, vllm_args: dict[str, Any]) -> dict[str, Any]:
        # A worker would get fewer GPUs than vLLM takes.
        for name in vllm_args:
            if name.endswith("_parallel_size"):
                if name in cls.model_fields:
                    raise ValueError(f"must not hold {name}: set engine.{name}")
                raise ValueError(
                    f"must not hold {name}: set engine.tensor_parallel_size and "
                    "engine.pipeline_parallel_size to how many GPUs share an engine, "
                    "executor.num_workers to how many engines there are"
                )
        return vllm_args

    @property
    def num_ranks(self) -> int:
        """Count vLLM's processes that share one engine; on GPUs each has its own."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


class UnitsConfig(Section):
    """How rows are cut into units, the grain of retry and commit. Aim at 30 to 120 s of work."""

    max_rows: PositiveInt = Field(20_000, description="Rows per unit.")
    max_bytes: PositiveInt = Field(
        64 * 2**20, description="Uncompressed bytes per unit; what one worker holds in memory."
    )
    order: Literal["input", "document", "auto"] = Field(
        "input",
        description="Which rows stand together. input: as they come; document: rows of the same "
        "document, so that the engine computes it once; the input is first copied in that order to "
        "the output folder. auto: document where that saves a sixth of the documents or more.",
    )


class ParityConfig(Section):
    """A check of the engine against the float32 reference before the job, on a sample of pairs."""

    num_pairs: int = Field(0, ge=0, le=2000, description="Pairs to compare; 0 leaves it out.")
    tolerance: float | None = Field(
        None,
        gt=0,
        description="Largest difference of a score; on average a quarter is allowed. "
        "Default: 0.001 where the job computes in float32, 0.1 for float16, else 0.6; in 16 bit "
        "times the standard deviation of the sample's logits where that is above 1.",
    )


class JobConfig(Section):
    """Everything that `rgpt-batch score` needs beside input and output.

    A section without options, such as one whose lines are all commented out, means its defaults.
    """

    model: ModelConfig
    protocol: ProtocolConfig = ProtocolConfig()
    score: ScoreConfig = ScoreConfig()
    input: InputConfig = InputConfig()
    output: OutputConfig = OutputConfig()
    engine: EngineConfig = EngineConfig()
    units: UnitsConfig = UnitsConfig()
    executor: ExecutorConfig = ExecutorConfig()
    parity: ParityConfig = ParityConfig()
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        return {"model": {}, **{key: value for key, value in settings.items() if value is not None}}

    @model_validator(mode="after")
    def _reference_is_float32(self) -> JobConfig:
        if self.engine.method == "transformers" and self.model.dtype not in ("float32", "auto"):
            raise ValueError(
                f"engine.method transformers is the float32 reference, but model.dtype is "
                f"{self.model.dtype}: set model.dtype=float32"
            )
        return self

    @model_validator(mode="after")
    def _kind_fits(self) -> JobConfig:
        kind, method = self.score.kind, self.engine.method
        if self.score.is_likelihood == (self.protocol.name == "prompt"):
            wanted = "card, eval or eval-arguana" if self.score.is_likelihood else "prompt"
            raise ValueError(f"score.kind {kind} needs protocol.name {wanted}")
        if method not in ("auto", *ENGINES[kind], "transformers", "fake"):
            raise ValueError(
                f"engine.method {method} does not compute score.kind {kind}; "
                f"{', '.join(ENGINES[kind])} does, which auto chooses"
            )
        if self.output.query_token_logprobs and not self.score.is_likelihood:
            raise ValueError(f"score.kind {kind} has no logprobs: leave out query_token_logprobs")
        return self

    @property
    def reads_weights(self) -> bool:
        """Whether an engine loads the checkpoint's usual files, pickled ones only if allowed.

        The fake engine loads none, and a load_format that the user chose may read what it likes.
        """
        return self.engine.method != "fake" and "load_format" not in self.engine.vllm_args

    def with_options(self, changes: Mapping[str, Any]) -> JobConfig:
        """Return a copy with other values; they pass the same checks as those of a file.

        Args:
            changes: Value by dotted name, such as `engine.method`, or a whole section by its name.

        Raises:
            ConfigError: A name is unknown, or a value is wrong.
        """
        settings = self.model_dump()
        for name, value in changes.items():
            given = value.model_dump() if isinstance(value, BaseModel) else value
            set_option(settings, name, given, name)
        return validated(JobConfig, settings, "configuration")
