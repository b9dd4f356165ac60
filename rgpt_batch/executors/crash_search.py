"""Which rows of a unit kill the engine, or make it fail?"""

from __future__ import annotations

import itertools
from collections import deque

# Pieces are scored one after the other until one kills the engine. Halves would score the fewest
# rows twice, but a crash costs an engine start, which takes longer. With 32 pieces three crashes
# find one row of 32,768; with halves it can take fifteen.
_NUM_PIECES = 32
# Where the engine crashes more often, something else is wrong than a few rows.
_MAX_CRASHES = 12


class CrashSearch:
    """Narrows the crashes of a unit down to the rows that cause them.

    A piece of the unit that kills the engine is cut into smaller ones. A single row is guilty when
    it kills alone, and once more after all else has been tried: the first time, something may have
    been wrong for a while. An engine that raises counts as one that dies.

    Attributes:
        crashing_rows: The guilty rows so far, counted from the unit's first.
    """

    def __init__(self, num_rows: int) -> None:
        self.crashing_rows: set[int] = set()
        self._waiting = deque(_cut(range(num_rows)))
        self._accused: set[int] = set()
        self._num_crashes = 0
        # Before one row is found guilty, the engine has to survive others, if there are any.
        self._engine_works = num_rows == 1

    @property
    def next_rows(self) -> range | None:
        """The rows to score next; None when the search is over."""
        return self._waiting[0] if self._waiting else None

    def survived(self) -> None:
        """Note that the engine has scored next_rows."""
        self._waiting.popleft()
        self._engine_works = True

    def crashed(self) -> bool:
        """Note that next_rows have killed an engine. False means: give up the search."""
        rows = self._waiting.popleft()
        if len(rows) > 1:
            self._waiting.extendleft(reversed(_cut(rows)))
        elif rows.start in self._accused:
            self.crashing_rows.add(rows.start)
        else:
            self._accused.add(rows.start)
            self._waiting.append(rows)
        self._num_crashes += 1
        is_hopeless = not self._waiting and not self._engine_works
        return self._num_crashes < _MAX_CRASHES and not is_hopeless


def _cut(rows: range) -> list[range]:
    num_pieces = min(_NUM_PIECES, len(rows))
    cuts = [len(rows) * index // num_pieces for index in range(num_pieces + 1)]
    return [rows[low:high] for low, high in itertools.pairwise(cuts)]
