"""What an output folder holds."""

from __future__ import annotations

from dataclasses import dataclass

from rgpt_batch.output.success import Success


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedFile:
    """A published output file."""

    unit_id: str
    path: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What an output folder holds.

    Attributes:
        files: The published units, by unit id.
        is_declared: Whether there is a _SUCCESS, true or not.
        declared: What it says, true or not; None where that is not understood.
        problem: Why the files do not count as a complete output; None where they do.
    """

    files: dict[str, CommittedFile]
    is_declared: bool
    declared: Success | None
    problem: str | None

    @property
    def success(self) -> Success | None:
        """What _SUCCESS says, if it names exactly the files that are there."""
        return self.declared if self.problem is None else None
