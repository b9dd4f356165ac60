"""What benchmarks of whole jobs share: made-up texts, the record of a run, the page."""

from __future__ import annotations

import random
from pathlib import Path

from rgpt_batch.output import open_store
from rgpt_batch.report.runs import RunRecord, read_records


def made_up_words(chooser: random.Random) -> list[str]:
    """Return 5,000 words of random letters."""
    return ["".join(chooser.choices("etaoinshrdlu", k=chooser.randint(2, 9))) for _ in range(5000)]


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
