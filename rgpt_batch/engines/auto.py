"""The choice of the fastest engine that works here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rgpt_batch.engines.base import AnyEngine
from rgpt_batch.errors import EngineError, EngineStartError
from rgpt_batch.formatting import first_line

_logger = logging.getLogger(__name__)


def first_that_works(starts: Sequence[Callable[[], AnyEngine]]) -> AnyEngine:
    """Start engines in order until one starts and passes its self-test.

    Args:
        starts: Each one starts an engine, or raises EngineError.

    Returns:
        The engine. Its passed_over says why the ones before it were not taken.

    Raises:
        EngineStartError: None works. The message names the cause of each.
    """
    passed_over: list[str] = []
    for start in starts:
        try:
            engine = start()
        except EngineError as error:
            # The first line of a message says what is wrong, the rest how to find out more.
            passed_over.append(first_line(error))
        else:
            engine.passed_over = tuple(passed_over)
            for reason in passed_over:
                _logger.warning("using %s, because %s", engine.method, reason)
            return engine
    causes = "\n".join(f"  {reason}" for reason in dict.fromkeys(passed_over))
    raise EngineStartError(f"no engine works here:\n{causes}")
