"""BERT classifiers as they were saved until 2020: a bare config, LayerNorm.gamma and .beta.

Google's bert_config.json, which monoBERT was published with, says neither what model it belongs to
nor how many labels there are; today's libraries refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rgpt_batch.conversion.layout import Layout
from rgpt_batch.conversion.needed import BERT_SIZES
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from rgpt_batch.conversion.weights import TensorFacts

# Every published BERT has it, and Google's file leaves it out.
_LAYER_NORM_EPS = 1e-12
_Parts = dict[str, tuple[int, ...]]

_TF_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def bert_layout(config: Settings, found: Mapping[str, TensorFacts]) -> Layout:
    """Describe the conversion of a BERT classifier, whose number of labels its tensors tell.

    Raises:
        ConfigError: It has no classifier, or a setting is missing.
    """
    classifier = found.get("classifier.weight")
    if classifier is None or len(classifier.shape) != 2:
        raise ConfigError(
            f"{config.file}: a BERT without model_type, and without classifier.weight among its "
            "tensors. Only classifiers can be converted."
        )
    num_labels = classifier.shape[0]
    sizes = {name: config.integer(name) for name in BERT_SIZES}
    layout_names = {_target_name(name): name for name in found}
    expected = {
        layout_names.get(name, name): shape for name, shape in _shapes(sizes, num_labels).items()
    }
    labels = {str(number): f"LABEL_{number}" for number in range(num_labels)}
    return Layout(
        name="BertForSequenceClassification",
        expected=expected,
        ignored=re.compile(r"bert\.embeddings\.position_ids"),
        convert=_convert,
        config={
            "layer_norm_eps": _LAYER_NORM_EPS,
            **config.values,
            "model_type": "bert",
            "architectures": ["BertForSequenceClassification"],
            "id2label": labels,
            "label2id": {label: int(number) for number, label in labels.items()},
        },
        rules=(
            f"BERT's config completed: model_type, architectures, {num_labels} labels",
            "LayerNorm.gamma and .beta, where they occur, renamed to .weight and .bias",
        ),
    )


def _shapes(sizes: Mapping[str, int], num_labels: int) -> dict[str, tuple[int, ...]]:
    hidden, intermediate = sizes["hidden_size"], sizes["intermediate_size"]
    square: _Parts = {"weight": (hidden, hidden), "bias": (hidden,)}
    norm: _Parts = {"weight": (hidden,), "bias": (hidden,)}
    layer: dict[str, _Parts] = {
        "attention.self.query": square,
        "attention.self.key": square,
        "attention.self.value": square,
        "attention.output.dense": square,
        "attention.output.LayerNorm": norm,
        "intermediate.dense": {"weight": (intermediate, hidden), "bias": (intermediate,)},
        "output.dense": {"weight": (hidden, intermediate), "bias": (hidden,)},
        "output.LayerNorm": norm,
    }
    modules: dict[str, _Parts] = {
        "bert.embeddings.word_embeddings": {"weight": (sizes["vocab_size"], hidden)},
        "bert.embeddings.position_embeddings": {
            "weight": (sizes["max_position_embeddings"], hidden)
        },
        "bert.embeddings.token_type_embeddings": {"weight": (sizes["type_vocab_size"], hidden)},
        "bert.embeddings.LayerNorm": norm,
        "bert.pooler.dense": square,
        "classifier": {"weight": (num_labels, hidden), "bias": (num_labels,)},
    }
    for number in range(sizes["num_hidden_layers"]):
        modules |= {f"bert.encoder.layer.{number}.{name}": each for name, each in layer.items()}
    return {
        f"{module}.{part}": shape
        for module, each in modules.items()
        for part, shape in each.items()
    }


def _target_name(name: str) -> str:
    for old, new in _TF_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _convert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield _target_name(name), tensor
