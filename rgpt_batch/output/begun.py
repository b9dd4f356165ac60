"""Which units were begun: what has ended a process without Ray may be in one of them.

Nobody starts another engine where a row kills the only process, with all that it would have noted.
So a run notes which units it has in hand, in one small file `_rgpt/begun/<run>`, which it writes
anew before it scores a further one. The next run leaves what a dead one had in hand for last, one
at a time; all others are scored.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

from rgpt_batch.errors import CommitError, StorageError
from rgpt_batch.output.store import Store


class Begun:
    """Notes which units this run has in hand, and knows which ones dead runs had.

    Entered as a context, it forgets them all where the run comes to its end, or is told to stop: no
    unit has ended it. Where an engine dies, or the process, they stay.

    Args:
        store: The output folder.
        run_id: This run.

    Raises:
        StorageError, OSError: What runs have left cannot be read.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._in_hand: set[str] = set()
        earlier = store.read_begun()
        self._noted = {*earlier, run_id}
        self._times = Counter(unit_id for unit_ids in earlier.values() for unit_id in unit_ids)

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
                self._store.drop_begun(self._noted)

    def times(self, unit_id: str) -> int:
        """Return how many earlier runs had a unit in hand when they died."""
        return self._times[unit_id]

    def note(self, unit_id: str) -> None:
        """Write down that a unit is about to be scored; a note that fails is no fault."""
        self._in_hand.add(unit_id)
        with suppress(CommitError, StorageError, OSError):
            self._store.write_begun(self._run_id, self._in_hand)

    def end(self, unit_id: str) -> None:
        """Leave a unit out of the next note: it is scored, or did not end the process."""
        self._in_hand.discard(unit_id)
