"""Convert a folder, and print by how many bytes the process's memory was larger meanwhile.

    python -m tests.conversion.memory SOURCE TARGET ROOM MAX_SHARD_BYTES…

One line for each size of shards. Before, it is converted once more, since what is loaded once,
libraries and their buffers, is not counted. With ROOM, which is 0 for none, the system gives the
process at most so many bytes more from then on, for all that it may write to: maps of files that
could be written to, which torch makes, are included.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from rgpt_batch.conversion.convert import convert
from rgpt_batch.errors import ConfigError


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    source, target, room, *sizes = sys.argv[1:]
    convert(Path(source), Path(f"{target}-first"), max_shard_bytes=2**20)
    for number, max_shard_bytes in enumerate(sizes):
        # Sets the largest memory so far, VmHWM, to that of now.
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory("VmRSS")
        if int(room):
            limit = _memory("VmData") + int(room)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        # The first gets the name that was asked for.
        place = Path(f"{target}-{number}" if number else target)
        try:
            convert(Path(source), place, max_shard_bytes=int(max_shard_bytes))
        except ConfigError as error:
            sys.exit(f"ConfigError: {error}")
        print(_memory("VmHWM") - before)
