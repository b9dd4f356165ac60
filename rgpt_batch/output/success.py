"""What _SUCCESS says, and when to believe it.

It names every file of a complete output. Files can be deleted or replaced after it was written, so
it counts only while it names exactly those that are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class OutputFile(BaseModel):
    """What is known of one file of a complete output.

    Attributes:
        size: Bytes.
        num_rejected: Rejected rows per reason.
        num_reused: Rows whose score was copied from an earlier job.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    sha256: str
    num_rows: int
    num_rejected: dict[str, int]
    num_reused: int = 0
    fingerprint: str


class Success(BaseModel):
    """The content of _SUCCESS.

    Attributes:
        num_rejected: Of all files.
        files: By unit id.
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    num_units: int
    num_rows: int
    num_rejected: dict[str, int]
    num_reused: int = 0
    files: dict[str, OutputFile]

    @classmethod
    def of(cls, files: dict[str, OutputFile], fingerprint: str, num_rows: int) -> Success:
        """Sum up files, which need not be complete.

        Args:
            files: By unit id.
            fingerprint: The job's.
            num_rows: The job's, whether they are there or not.
        """
        num_rejected: Counter[str] = Counter()
        for file in files.values():
            num_rejected.update(file.num_rejected)
        return cls(
            fingerprint=fingerprint,
            num_units=len(files),
            num_rows=num_rows,
            num_rejected=dict(num_rejected),
            num_reused=sum(file.num_reused for file in files.values()),
            files=files,
        )

    def mismatch(self, there: Mapping[str, int]) -> str | None:
        """Say how files differ from those that are named; None where they are the same.

        Args:
            there: Size in bytes by name.
        """
        named = {file.name: file.size for file in self.files.values()}
        differences = (
            (named.keys() - there.keys(), "missing"),
            (there.keys() - named.keys(), "not named there"),
            ({name for name in named if named[name] != there.get(name)}, "of another size"),
        )
        for names, what in differences:
            if names:
                more = f" and {len(names) - 1:,} more are" if len(names) > 1 else " is"
                return f"its _SUCCESS is out of date: {min(names)}{more} {what}"
        return None
