"""Whether a model can fit into memory with vLLM, reckoned before vLLM loads it.

Each of the GPUs that share an engine holds a part of the weights, and of the keys and values of one
prompt of full length, which vLLM insists on. Where layers are split unevenly, what is compared is
the mean of the GPUs: the one that holds most needs no less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.fit import Need, Room, check_fits, gpu_room, main_room
from rgpt_batch.engines.memory import main_memory
from rgpt_batch.engines.weights import least_weight_bytes
from rgpt_batch.errors import EngineStartError

# With these vLLM keeps weights elsewhere, or reads other files.
_ELSEWHERE = ("offload", "load_format", "model_loader")
# The fewest bits that vLLM makes of a number when it quantises weights itself.
_QUANTISED_BITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a model takes at least, over all devices.

    Attributes:
        weights: Bytes; None where nothing tells them.
        token: Bytes of one token's keys and values in all layers; 0 where not all tokens of a
            prompt have some in all layers.
        num_kv_heads: How many devices can share these in one layer.
        num_layers: How many devices can share these.
        num_tokens: Of the longest prompt.
        dtype: Of weights and activations.
    """

    weights: int | None
    token: int
    num_kv_heads: int
    num_layers: int
    num_tokens: int
    dtype: str

    @property
    def prompt(self) -> str:
        """Say whose keys and values a cache has to hold."""
        return f"the keys and values of one prompt of {self.num_tokens:,} tokens"

    def prompt_bytes(self, devices: Devices) -> int:
        """Return what a prompt takes in the cache of the device with the most layers."""
        shared = min(devices.tensor_parallel, self.num_kv_heads)
        layers = self._most_layers(devices)
        return self.token * self.num_tokens * layers // self.num_layers // shared

    def need(self, devices: Devices, *, cache: int | None) -> Need:
        """Say what each device needs on average; on CPUs, whose ranks share memory, all of them.

        Args:
            devices: Where the model is to run.
            cache: Bytes of engine.kv_cache_bytes, if given.
        """
        num_stages, num_ranks = devices.pipeline_parallel, devices.num_ranks
        # The device with the most layers takes all of it, others as much as their layers need.
        most = self.prompt_bytes(devices) if cache is None else cache
        mean = most * self.num_layers // (self._most_layers(devices) * num_stages)
        return Need(
            weights=(self.weights or 0) // (1 if devices.is_cpu else num_ranks),
            kv_cache=mean * num_ranks if devices.is_cpu else mean,
            kv_cache_holds=self.prompt if cache is None else "engine.kv_cache_bytes",
        )

    def _most_layers(self, devices: Devices) -> int:
        return -(-self.num_layers // devices.pipeline_parallel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Where an engine runs.

    Attributes:
        tensor_parallel: How many share each layer.
        pipeline_parallel: How many times as many share the model, each with some of the layers.
        num_bytes: Memory of each GPU, or of the machine.
        share: What the engine may take of it.
    """

    is_cpu: bool
    tensor_parallel: int
    pipeline_parallel: int
    num_bytes: int
    share: float

    @property
    def num_ranks(self) -> int:
        """Count the processes of the engine; each has a GPU, or all have the machine's CPUs."""
        return self.tensor_parallel * self.pipeline_parallel


def check_memory(config: JobConfig, args: dict[str, Any]) -> None:
    """Refuse a model that cannot fit.

    Args:
        config: The job's.
        args: Of vllm.EngineArgs.

    Raises:
        EngineStartError: It cannot fit, or engine.kv_cache_bytes hold no prompt of full length.
    """
    if any(word in name for word in _ELSEWHERE for name in config.engine.vllm_args):
        return
    check_sizes(config, model_sizes(config, args), _devices(config, args))


def check_sizes(config: JobConfig, sizes: Sizes, devices: Devices) -> None:
    """Compare what a model takes with what there is; see check_memory."""
    cache = config.engine.kv_cache_bytes
    prompt = sizes.prompt_bytes(devices)
    if cache is not None and cache < prompt:
        raise EngineStartError(
            f"engine.kv_cache_bytes is {cache:,}, but {sizes.prompt} take {prompt:,} bytes. Raise "
            "it, leave it out, or lower protocol.max_length."
        )
    total, share = devices.num_bytes, devices.share
    # On CPUs each rank may take the share, of what all have.
    all_ranks = min(1.0, share * devices.num_ranks)
    room = main_room(total, all_ranks) if devices.is_cpu else gpu_room(total, share)
    advice = _advice(config, sizes, devices, room)
    check_fits(config.model.name, sizes.need(devices, cache=cache), room, advice)


def model_sizes(config: JobConfig, args: dict[str, Any]) -> Sizes:
    """Ask vLLM and the checkpoint's files what a model takes at least."""
    from vllm import EngineArgs

    model = EngineArgs(**args).create_model_config()
    num_bits = model.dtype.itemsize * 8
    if config.engine.vllm_args.get("quantization") is not None:
        num_bits = _QUANTISED_BITS
    return Sizes(
        weights=least_weight_bytes(
            config.model, num_bits=num_bits, with_head=config.score.kind != "classification"
        ),
        token=_token_bytes(model, args),
        num_kv_heads=max(1, model.get_total_num_kv_heads()),
        num_layers=max(1, model.get_total_num_hidden_layers()),
        num_tokens=args["max_model_len"],
        dtype=str(model.dtype).removeprefix("torch."),
    )


def _devices(config: JobConfig, args: dict[str, Any]) -> Devices:
    from vllm.platforms import current_platform

    # A cache of a given size is taken whatever the share.
    is_given = config.engine.kv_cache_bytes is not None
    share = 1.0 if is_given else float(args["gpu_memory_utilization"])
    is_cpu = current_platform.is_cpu()
    num_ranks = config.engine.num_ranks
    totals = map(current_platform.get_device_total_memory, range(num_ranks))
    return Devices(
        is_cpu=is_cpu,
        tensor_parallel=config.engine.tensor_parallel_size,
        pipeline_parallel=config.engine.pipeline_parallel_size,
        num_bytes=main_memory()[0] if is_cpu else min(totals),
        share=share,
    )


def _token_bytes(model: Any, args: dict[str, Any]) -> int:
    text_config = model.hf_text_config
    kinds = {*(getattr(text_config, "layer_types", None) or ()), "full_attention"}
    if (
        # Encoders have no cache.
        not args["enable_chunked_prefill"]
        or (model.use_mla or model.is_hybrid or model.is_attention_free)
        or model.get_sliding_window() is not None
        or kinds != {"full_attention"}
    ):
        return 0
    itemsizes = {"auto": model.dtype.itemsize, "bfloat16": 2, "float16": 2}
    itemsize = itemsizes.get(args.get("kv_cache_dtype", "auto"), 1)
    num_heads, head_size = model.get_total_num_kv_heads(), model.get_head_size()
    return int(2 * text_config.num_hidden_layers * num_heads * head_size * itemsize)


def _advice(config: JobConfig, sizes: Sizes, devices: Devices, room: Room) -> str:
    cache = config.engine.kv_cache_bytes
    ways = []
    for number in () if devices.is_cpu else (2, 4, 8, 16):
        more = replace(devices, tensor_parallel=number)
        if sizes.need(more, cache=cache).total <= room.num_bytes:
            ways.append(f"engine.tensor_parallel_size={number}")
            break
    if sizes.dtype == "float32":
        ways.append("model.dtype=bfloat16")
    ways.append("a quantised checkpoint")
    if cache is not None:
        ways.append("a smaller engine.kv_cache_bytes")
    elif sizes.token:
        ways.append("a smaller protocol.max_length")
    if devices.share < 1:
        ways.append("a larger engine.gpu_memory_utilization")
    return (
        f"Take {', '.join(ways)}, or {'a machine' if devices.is_cpu else 'GPUs'} with more memory."
    )
