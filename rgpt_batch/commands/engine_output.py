"""Engines that a command runs beside a job: what they print is kept only where they fail."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rgpt_batch.errors import EngineError

if TYPE_CHECKING:
    from rgpt_batch.job.terminal import Terminal


@contextmanager
def engine_output_kept(command: str) -> Iterator[Terminal]:
    """Send what this process prints to a log in a temporary folder; an EngineError says where.

    Yields:
        The terminal, for what the command itself has to say meanwhile.
    """
    from rgpt_batch.executors.process_log import RunLogs
    from rgpt_batch.job.terminal import Terminal

    folder = tempfile.mkdtemp(prefix="rgpt-batch-")
    terminal = Terminal()
    try:
        with terminal.captured(RunLogs(output=folder, run_id=command), "engine"):
            yield terminal
    except EngineError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
