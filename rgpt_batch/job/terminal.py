"""The terminal of a job: it shows what the job says, and while others are captured nothing else."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from typing_extensions import override

from rgpt_batch.errors import EngineError
from rgpt_batch.executors.process_log import RunLogs
from rgpt_batch.storage.uris import redacted


class Terminal:
    """Standard error, also while it is captured.

    Args:
        as_json: Write each line as a JSON object.

    Attributes:
        as_json: See above.
        facts: What each such object says beside the message: the run's name.
        console: Draws the progress bar, if there is one; lines go above it.
        is_captured: Whether what others print goes elsewhere.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.facts: dict[str, Any] = {}
        self.console: Console | None = None
        self._stream: TextIO | None = None

    @property
    def is_captured(self) -> bool:
        """Whether standard error leads elsewhere."""
        return self._stream is not None

    @property
    def stream(self) -> TextIO:
        """Where lines go."""
        return self._stream or sys.stderr

    def say(self, message: str, *, level: str = "info", **facts: Any) -> None:
        """Write a message with the time; the facts, in JSON alone."""
        if self.as_json:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            record = {"time": now, "level": level, **self.facts, "message": message, **facts}
            print(redacted(json.dumps(record)), file=self.stream, flush=True)
            return
        line = f"{time.strftime('%H:%M:%S')} {message}"
        if self.console is None:
            print(line, file=self.stream, flush=True)
        else:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def captured(self, logs: RunLogs, name: str) -> Iterator[None]:
        """Send what anything else in this process prints to a log; warnings of ours stay.

        Where an engine fails meanwhile, the error gets the log's last lines.
        """
        # Otherwise it is the caller's own, and does not lead to the log.
        is_descriptor = _is_descriptor(sys.stderr, 2)
        with logs.captured(name) as captured, ExitStack() as stack:
            if captured is None:
                yield
                return
            log, descriptor = captured
            if is_descriptor:
                self._stream = stack.enter_context(_text_stream(os.dup(descriptor)))
            logger, sayer = logging.getLogger("rgpt_batch"), _Sayer(self)
            logger.addHandler(sayer)
            try:
                yield
            except EngineError as error:
                log.noted(error)
                raise
            finally:
                logger.removeHandler(sayer)
                self._stream = None


class _Sayer(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.say(record.getMessage(), level=record.levelname.lower())


def _text_stream(descriptor: int) -> TextIO:
    return os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace")


def _is_descriptor(stream: TextIO | None, number: int) -> bool:
    try:
        return stream is not None and stream.fileno() == number
    except (OSError, ValueError):
        return False
