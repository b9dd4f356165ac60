"""What a layout is: which tensors a checkpoint must hold, and what becomes of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from rgpt_batch.conversion.weights import TensorFacts

Shapes = Mapping[str, tuple[int, ...]]
_NUM_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How checkpoints of one kind are converted.

    Attributes:
        name: For messages.
        expected: Shapes of all tensors that the source must hold; None takes all that are there.
        ignored: Names of buffers that old checkpoints carry and no model reads.
        convert: Makes none, one or several tensors of one; those it yields may be views.
        added: Tensors that come from elsewhere.
        config: The content of the target's config.json; None copies the source's.
        rules: What was done, in words, for the record.
        keeps_code: Whether Python files of the source belong to the target.
    """

    name: str
    expected: Shapes | None
    convert: Callable[[str, Tensor], Iterable[tuple[str, Tensor]]]
    config: dict[str, Any] | None
    rules: tuple[str, ...]
    ignored: re.Pattern[str] = field(default=re.compile(r"(?!)"))
    added: Mapping[str, Tensor] = field(default_factory=dict)
    keeps_code: bool = False


def check_tensors(folder: Path, layout: Layout, found: Mapping[str, TensorFacts]) -> None:
    """Refuse tensors that are unknown, missing, of another shape, or no plain floating numbers.

    Raises:
        ConfigError: With the first few names.
    """
    if layout.expected is None:
        return
    names = {name for name in found if not layout.ignored.fullmatch(name)}
    _refuse(folder, layout, "holds unknown tensors", names - layout.expected.keys())
    _refuse(folder, layout, "lacks tensors", layout.expected.keys() - names)
    for name in sorted(names):
        shape, wanted = found[name].shape, layout.expected[name]
        if shape != wanted:
            raise ConfigError(
                f"{folder}: tensor '{name}' has shape {shape}; its config says {wanted}. They do "
                "not belong together."
            )
        if not found[name].is_float:
            raise ConfigError(
                f"{folder}: tensor '{name}' is {found[name].dtype}, expected floating numbers. "
                "Convert the model as it was before it was quantised."
            )


def _refuse(folder: Path, layout: Layout, what: str, names: Iterable[str]) -> None:
    if ordered := sorted(names):
        more = f" and {len(ordered) - _NUM_SHOWN} more" if len(ordered) > _NUM_SHOWN else ""
        raise ConfigError(
            f"{folder}: {what} for {layout.name}: {', '.join(ordered[:_NUM_SHOWN])}{more}. Nothing "
            "is converted, since a model would be wrong without a word."
        )
