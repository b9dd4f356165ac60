"""A conversion that stops at each report and waits for a line: to be killed in mid-way.

python -m tests.conversion.converting SOURCE TARGET MAX_SHARD_BYTES
"""

from __future__ import annotations

import sys
from pathlib import Path

from rgpt_batch.commands.signals import sigterm_unwinds
from rgpt_batch.conversion.convert import convert


def _report(message: str) -> None:
    print(message, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    source, target, max_shard_bytes = sys.argv[1:]
    with sigterm_unwinds():
        convert(Path(source), Path(target), max_shard_bytes=int(max_shard_bytes), report=_report)
