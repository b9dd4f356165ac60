"""The command convert: checkpoints that no engine loads become folders that all load."""

from __future__ import annotations

from pathlib import Path

import click

from rgpt_batch.commands.signals import sigterm_unwinds
from rgpt_batch.commands.text import LocalPath, print_facts

_KINDS = """\b
What is converted:
  Baichuan2-7B        to Llama: W_pack split, NormHead folded into lm_head
  Qwen-7B (v1)        to Qwen2
  RankLLaMA           the adapter is merged into its base
  monoBERT            its bare config is completed
  MonoT5, RankT5      copies of the embeddings are left out
  any model           pytorch_model.bin to safetensors
  tokenizer.model     of Llama-2 and Baichuan, to tokenizer.json (needs the extra `convert`)
  spiece.model        of T5, to tokenizer.json (needs the extra `convert`)
  qwen.tiktoken       to tokenizer.json
Example: rgpt-batch convert models/RankingGPT-qwen-7b models/RankingGPT-qwen-7b-qwen2
"""


@click.command(short_help="Make a model's folder fit for all engines.", epilog=_KINDS)
@click.argument("source", metavar="SRC", type=LocalPath())
@click.argument("target", metavar="DST", type=LocalPath())
@click.option(
    "--base",
    type=LocalPath(exists=True, file_okay=False),
    help="Folder of the model that an adapter belongs to. [default: where the adapter says]",
)
def convert(source: str, target: str, base: str | None) -> int:
    """Convert the model in folder SRC to DST, which must not exist.

    No code of the model is run, and SRC is not changed. DST appears when it is whole; its
    conversion.json says what was done, with hashes of all files.
    """
    from rgpt_batch.conversion.convert import convert as convert_folder

    with sigterm_unwinds():
        done = convert_folder(
            Path(source),
            Path(target),
            base=Path(base) if base else None,
            report=lambda message: click.echo(message, err=True),
        )
    for rule in done.rules:
        print_facts({"rule": rule})
    print_facts(
        {
            "weights": f"{done.num_tensors:,} tensors, {done.num_bytes / 2**30:,.2f} GiB",
            "output": target,
        }
    )
    return 0
