"""Which units were begun: what has ended a process without Ray may be in one of them.

Nobody starts another engine where a row kills the only process, with all that it would have noted.
So each unit is noted, as a small file `_rgpt/claims/<unit>-begun-<run>`, before it is scored. The
next run leaves those that were not finished for last, one at a time; all others are scored.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

from rgpt_batch.errors import CommitError, StorageError
from rgpt_batch.output.store import Store

_NAME = re.compile(r"(\w+)-begun-.+")


class Begun:
    """Notes which units this run has begun, and knows which ones earlier runs have.

    Entered as a context, it forgets them all where the run comes to its end, or is told to stop: no
    unit has ended it. Where an engine dies, or the process, they stay.

    Args:
        store: The output folder.
        run_id: This run.

    Raises:
        StorageError, OSError: The folder cannot be listed.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._names = {name for name in store.claims() if _NAME.fullmatch(name)}
        matches = filter(None, map(_NAME.fullmatch, self._names))
        self._times = Counter(match[1] for match in matches)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Which is what signals raise here (job.signals).
        if error is None or isinstance(error, KeyboardInterrupt):
            with suppress(CommitError, StorageError, OSError):
                self._store.drop_claims(self._names)

    def times(self, unit_id: str) -> int:
        """Return how many earlier runs have begun a unit since one has last come to its end."""
        return self._times[unit_id]

    def note(self, unit_id: str) -> None:
        """Write down that a unit is about to be scored; a note that fails is no fault."""
        name = f"{unit_id}-begun-{self._run_id}"
        if name in self._names:
            return
        self._names.add(name)
        with suppress(CommitError, StorageError, OSError):
            self._store.claim(name, self._run_id)
