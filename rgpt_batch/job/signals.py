"""A signal stops the job in an orderly way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rgpt_batch.errors import Interrupted


@contextmanager
def signals_raise() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into Interrupted; a second one acts as the system does."""
    previous: dict[int, Any] = {}
    received: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for other in previous:
            signal.signal(other, signal.SIG_DFL)
        # An engine that is just starting may catch every Exception; this is none.
        raise KeyboardInterrupt

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, interrupt)
    except ValueError:
        # Signals reach the main thread alone; in another one the caller has to stop the job.
        pass
    try:
        yield
    except BaseException as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
