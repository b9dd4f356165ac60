"""Whether a model can fit into memory, before it is loaded.

What an engine needs at least is reckoned, never more: activations and the libraries' own memory
come on top. So a model that fits is never refused, and one that is refused cannot fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.engines.memory import main_memory
from rgpt_batch.engines.weights import least_weight_bytes
from rgpt_batch.errors import EngineStartError
from rgpt_batch.formatting import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The least that an engine takes of one device's memory, bytes.

    Attributes:
        kv_cache: Of keys and values.
        kv_cache_holds: What these are for.
    """

    weights: int
    kv_cache: int = 0
    kv_cache_holds: str = ""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory that an engine may take of one device, bytes.

    Attributes:
        name: Which memory it is, such as "the machine's memory".
    """

    num_bytes: int
    name: str


def check_fits(model: str, need: Need, room: Room, advice: str) -> None:
    """Refuse a model that cannot fit.

    Args:
        model: Its name.
        need: Of one device.
        room: Of one device.
        advice: What the user can do, as sentences.

    Raises:
        EngineStartError: It needs more than there is.
    """
    if need.total <= room.num_bytes:
        return
    parts = {"its weights": need.weights, need.kv_cache_holds: need.kv_cache}
    taken = [f"{format_bytes(number)} for {name}" for name, number in parts.items() if number]
    raise EngineStartError(
        f"model '{model}' does not fit into {room.name}, {format_bytes(room.num_bytes)}: it takes "
        f"at least {' and '.join(taken)}. {advice}"
    )


def check_loads(model: ModelConfig, dtype: str, *, with_head: bool, share: float = 1.0) -> None:
    """Refuse a model that transformers cannot load here.

    Args:
        model: Which checkpoint.
        dtype: Name of a torch dtype, or auto.
        with_head: See least_weight_bytes.
        share: What it may take of a GPU's memory.

    Raises:
        EngineStartError: It cannot fit.
    """
    import torch

    num_bits = None if dtype == "auto" else getattr(torch, dtype).itemsize * 8
    weights = least_weight_bytes(model, num_bits=num_bits, with_head=with_head)
    if weights is None:
        return
    if torch.cuda.is_available():
        total = int(torch.cuda.get_device_properties(0).total_memory)
        room, place = gpu_room(total, share), "GPU"
    else:
        total, _ = main_memory()
        room, place = main_room(total), "machine"
    advice = f"Take a {place} with more memory"
    if dtype == "float32":
        advice += ", or a 16-bit model.dtype (the reference is float32 always)"
    check_fits(model.name, Need(weights=weights), room, f"{advice}.")


def main_room(total: int, share: float = 1.0) -> Room:
    """The memory of this machine or container."""
    return _room("the machine's memory", total, share)


def gpu_room(total: int, share: float = 1.0) -> Room:
    """The memory of a GPU."""
    return _room("a GPU's memory", total, share)


def _room(name: str, total: int, share: float) -> Room:
    name = name if share >= 1 else f"{share:.0%} of {name} of {format_bytes(total)}"
    return Room(num_bytes=int(total * share), name=name)
