"""Small random models that judge pairs. The two of the paper are converted from their layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.config.load import load_config
from rgpt_batch.config.options import JobConfig
from tests.models import demo_texts, save_tiny_tokenizer

ROOT = Path(__file__).parent.parent
VOCAB_SIZE = 1000
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranker:
    """A model's folder, and a published configuration of the same kind.

    Attributes:
        tensors: Those of the published checkpoint, by name.
        factors: Those of its adapter.
    """

    folder: Path
    config_file: Path
    tensors: dict[str, Any]
    factors: dict[str, Any]

    def config(self, method: str, **options: Any) -> JobConfig:
        """The published configuration, for CPU; see job_options."""
        given = [f"{name}={value}" for name, value in job_options(self.folder, method).items()]
        return load_config(self.config_file, (*given, *(f"{k}={v}" for k, v in options.items())))


def job_options(folder: Path, method: str) -> dict[str, str]:
    """What differs on CPU from a published configuration; prompts are longer than a step."""
    return {
        "model.name": str(folder),
        "model.dtype": "float32",
        "engine.method": method,
        "engine.kv_cache_bytes": str(64 * 2**20),
        "engine.max_num_seqs": "16",
        "engine.max_num_batched_tokens": "96",
        "engine.enforce_eager": "true",
        "executor.gpus_per_worker": "null",
    }


@pytest.fixture(scope="session")
def tiny_monobert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    """MonoBERT with two labels, converted from Google's bare config and a pickle of 2020."""
    from rgpt_batch.conversion.convert import convert
    from tests.conversion.checkpoints import BERT, bert_tensors, save
    from tests.conversion.vocabularies import write_json

    folder = tmp_path_factory.mktemp("monobert")
    config = {**BERT, "vocab_size": VOCAB_SIZE}
    tensors = bert_tensors(config, num_labels=2, old_names=False)
    source = save(folder / "published", config, tensors, num_shards=1, legacy=True)
    (source / "vocab.txt").write_text("\n".join(word_pieces()) + "\n", encoding="utf-8")
    write_json(source / "tokenizer_config.json", {"do_lower_case": True, "max_len": 512})
    convert(source, folder / "bert")
    yield Reranker(
        folder=folder / "bert",
        config_file=ROOT / "configs" / "monobert-340m.yaml",
        tensors=tensors,
        factors={},
    )


@pytest.fixture(scope="session")
def tiny_rankllama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    """RankLLaMA: a Llama with Llama-2's tokenizer.model, and the adapter merged into it."""
    from rgpt_batch.conversion.convert import convert
    from tests.conversion.checkpoints import (
        ADAPTER,
        LLAMA,
        adapter_tensors,
        llama_tensors,
        save,
        save_adapter,
    )
    from tests.conversion.vocabularies import LLAMA_TOKENIZER, save_llama_model, write_json

    folder = tmp_path_factory.mktemp("rankllama")
    tensors = llama_tensors(LLAMA)
    base = save(folder / "base", LLAMA, tensors)
    save_llama_model(base / "tokenizer.model", vocab_size=VOCAB_SIZE)
    write_json(base / "tokenizer_config.json", LLAMA_TOKENIZER)
    factors = adapter_tensors(ADAPTER, tensors)
    adapter = save_adapter(folder / "adapter", ADAPTER, factors)
    convert(adapter, folder / "merged", base=base)
    yield Reranker(
        folder=folder / "merged",
        config_file=ROOT / "configs" / "rankllama-7b.yaml",
        tensors=tensors,
        factors=factors,
    )


def word_pieces() -> list[str]:
    """BERT's vocabulary, small: trained on the demo's text, filled up with unused pieces."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(
        demo_texts(),
        vocab_size=VOCAB_SIZE - 100,
        special_tokens=list(BERT_SPECIALS),
        show_progress=False,
    )
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    return [*pieces, *(f"[unused{number}]" for number in range(VOCAB_SIZE - len(pieces)))]


def save_random(folder: Path, model_class: str, config_class: str, **settings: Any) -> Path:
    """Save a random model of transformers in float32, with the tiny tokenizer.

    Weights are large enough for logits to differ by some units between prompts.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**settings)
    model = getattr(transformers, model_class)(config).to(torch.float32)
    model.save_pretrained(folder)
    return save_tiny_tokenizer(folder)
