"""Which units this process may score, while other processes share its output folder.

A claim is a small file that only one process can create, `_rgpt/claims/<unit>-<number>`. It is a
hint: it keeps two processes from scoring the same unit, and nothing else. What is done is what the
folder lists, and of two files of a unit the first stays, whatever claims say.

A process that ends gives back what it has not finished. One that is killed cannot. So each renews
a record in `_rgpt/processes`, and when one stays the same for too long, the others may claim its
units anew, by the next number. No clock of another machine is read: everybody counts how long ago
the record was last seen to change.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rgpt_batch.errors import CommitError, StorageError
from rgpt_batch.output.store import Store
from rgpt_batch.records import WorkUnit

_FAILED = "-failed"
_NAME = re.compile(rf"(\w+)-(\d+)({_FAILED})?")
# All processes together look about ten times a second, each at most once. A look at very many units
# takes long: no process spends more than a tenth of its time on it.
_LOOK_SECONDS = 0.1
_LOOK_SHARE = 0.1
_LEAST_LOOK_SECONDS = 1.0
_SIGN_SECONDS = 5.0
# The reading of all files at the end is claimed like a unit.
_ENDING = "ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A claim of a unit; the one with the highest number counts.

    Attributes:
        is_failed: Whether its owner has given the unit up as failed.
    """

    unit_id: str
    number: int
    is_failed: bool = False

    @property
    def name(self) -> str:
        """The claim's file; a second one beside it says that it has failed."""
        return f"{self.unit_id}-{self.number}"


class Claims:
    """Claims units for one process. Entering it as a context joins the others; leaving it ends it.

    Args:
        store: The output folder.
        run_id: The name of the process.
        timeout_seconds: How long a process may show no sign of life before its units are free.
        facts: Returns what to tell others about the process.
        see: Is told which units of other processes are committed, at every look.

    Attributes:
        num_processes: Those that show signs of life, this one included.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        timeout_seconds: float,
        facts: Callable[[], dict[str, Any]],
        see: Callable[[Set[str]], None],
    ) -> None:
        self.num_processes = 1
        self._store = store
        self._run_id = run_id
        self._timeout = timeout_seconds
        self._facts = facts
        self._see = see
        self._mine: dict[str, str] = {}
        # The claim that is being made: an interrupt may come before its outcome is noted.
        self._pending: _Claim | None = None
        self._claims: dict[str, _Claim] = {}
        self._owners: dict[str, str] = {}
        self._committed: Set[str] = frozenset()
        # By run: its last sign of life, and when that was first seen.
        self._signs: dict[str, tuple[str, float]] = {}
        self._started = self._last_news = self._next_look = time.monotonic()
        self._old_failures: frozenset[str] = frozenset()
        self._num_signs = itertools.count(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show_signs, daemon=True)

    def __enter__(self) -> Self:
        self._read()
        # What failed before is tried again; what fails from now on is not.
        self._old_failures = frozenset(c.name for c in self._claims.values() if c.is_failed)
        self._show_sign()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(CommitError, StorageError, OSError):
            self._read()
            if self._pending and self._store.claim_owner(self._pending.name) == self._run_id:
                self._mine[self._pending.unit_id] = self._pending.name
            self._store.drop_claims(n for u, n in self._mine.items() if not self.is_over(u))
            self._store.drop_process(self._run_id)

    def in_own_order(self, units: Sequence[WorkUnit]) -> list[WorkUnit]:
        """Return units in an order of this process's own: two then rarely want the same one."""
        return random.Random(self._run_id).sample(units, len(units))

    def look(self) -> bool:
        """See what others have claimed and committed; False where there are no news yet.

        Raises:
            StorageError, OSError: Nothing could be seen for as long as a process may be silent.
        """
        if time.monotonic() < self._next_look:
            return False
        try:
            self._read()
        except (StorageError, OSError):
            if time.monotonic() - self._last_news > self._timeout:
                raise
            self._next_look = time.monotonic() + _LEAST_LOOK_SECONDS
            return False
        return True

    def take(self, unit_id: str) -> bool:
        """Claim a unit; False where another process is at it, or was faster."""
        if unit_id in self._mine:
            return True
        if not (self.is_free(unit_id) or self.is_abandoned(unit_id)):
            return False
        last = self._claims.get(unit_id)
        self._pending = claim = _Claim(unit_id=unit_id, number=last.number + 1 if last else 0)
        try:
            is_mine = self._store.claim(claim.name, self._run_id)
        except CommitError:
            # A claim is a hint; whether the scores can be written will show.
            is_mine = True
        self._claims[unit_id] = claim
        if is_mine:
            self._mine[unit_id] = claim.name
        self._pending = None
        return is_mine

    def give_up(self, unit_id: str) -> None:
        """Tell the others that a unit of this process has failed, so that none waits for it."""
        with suppress(CommitError):
            self._store.claim(f"{self._mine[unit_id]}{_FAILED}", self._run_id)

    def is_over(self, unit_id: str) -> bool:
        """Whether a unit is committed, or has failed since this process has joined."""
        claim = self._claims.get(unit_id)
        has_failed = claim is not None and claim.is_failed
        return unit_id in self._committed or (has_failed and not self._is_old(claim))

    def is_free(self, unit_id: str) -> bool:
        """Whether no process is at a unit, or this one is."""
        return unit_id in self._mine or self._is_old(self._claims.get(unit_id))

    def is_abandoned(self, unit_id: str) -> bool:
        """Whether the process that has claimed a unit shows no sign of life any more."""
        claim = self._claims.get(unit_id)
        owner = None if claim is None else self._owner(claim.name)
        if owner is None:
            return False
        _, since = self._signs.get(owner, ("", self._started))
        return time.monotonic() - since > self._timeout

    def wait_for_ending(self) -> None:
        """Claim the reading of all files at the end, or wait until another process has done it."""
        while not self._store.listing().success:
            if self.is_over(_ENDING) or self.take(_ENDING):
                return
            time.sleep(max(0.0, self._next_look - time.monotonic()))
            self.look()

    def end(self, *, is_complete: bool) -> None:
        """Tell the others how the reading of all files has ended."""
        if is_complete:
            with suppress(CommitError, StorageError, OSError):
                self._store.drop_shares()
        elif _ENDING in self._mine:
            self.give_up(_ENDING)

    def _is_old(self, claim: _Claim | None) -> bool:
        """Whether nobody is at the unit of a claim that failed before this process has joined."""
        return claim is None or (claim.is_failed and claim.name in self._old_failures)

    def _owner(self, name: str) -> str | None:
        if name not in self._owners:
            with suppress(StorageError, OSError):
                if owner := self._store.claim_owner(name):
                    self._owners[name] = owner
        return self._owners.get(name)

    def _read(self) -> None:
        began = time.monotonic()
        # In this order: what a complete output no longer claims is committed.
        claims = self._store.claims()
        self._committed = self._store.committed().keys()
        signs = self._store.processes()
        now = self._last_news = time.monotonic()
        self._claims = _last_claims(claims)
        for run_id, sign in signs.items():
            if self._signs.get(run_id, ("", 0.0))[0] != sign:
                self._signs[run_id] = sign, now
        silent = {run for run, (_, since) in self._signs.items() if now - since > self._timeout}
        self.num_processes = len(signs.keys() - silent | {self._run_id})
        pause = max(_LEAST_LOOK_SECONDS, _LOOK_SECONDS * self.num_processes)
        self._next_look = now + max(pause, (now - began) / _LOOK_SHARE)
        self._see(self._committed - self._mine.keys())

    def _show_signs(self) -> None:
        while not self._stop.wait(min(_SIGN_SECONDS, self._timeout / 4)):
            self._show_sign()

    def _show_sign(self) -> None:
        sign = {"run_id": self._run_id, "sign": next(self._num_signs), **self._facts()}
        with suppress(CommitError, StorageError, OSError):
            self._store.write_process(self._run_id, sign)


def _last_claims(names: Iterable[str]) -> dict[str, _Claim]:
    """Return the last claim of each unit."""
    claims: dict[str, _Claim] = {}
    for match in filter(None, map(_NAME.fullmatch, names)):
        claim = _Claim(unit_id=match[1], number=int(match[2]), is_failed=match[3] is not None)
        last = claims.get(claim.unit_id)
        if last is None or (claim.number, claim.is_failed) > (last.number, last.is_failed):
            claims[claim.unit_id] = claim
    return claims
