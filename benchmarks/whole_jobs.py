"""What benchmarks of whole jobs share: words for texts, the record of a run, the page."""

from __future__ import annotations

from pathlib import Path

from rgpt_batch.bench.workload import single_token_words
from rgpt_batch.config.options import JobConfig
from rgpt_batch.output import open_store
from rgpt_batch.report.runs import RunRecord, read_records
from rgpt_batch.scoring.tokenizer import load_tokenizer


def words_of(config: JobConfig) -> list[str]:
    """Return words that the model's tokenizer knows; all others would be one and the same token."""
    return single_token_words(load_tokenizer(config.model))


def only_run(output: Path) -> RunRecord:
    """Read what the only run of a job has left on record."""
    (record,) = read_records(open_store(str(output)))[0]
    return record


def publish(lines: list[str], to: Path | None) -> None:
    """Print a page, and write it where that is wanted."""
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if to is not None:
        to.write_text(text, encoding="utf-8")
