"""What a kind of storage gives an output folder: names, and bytes in one atomic step."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from rgpt_batch.storage.uris import redacted_values


class Place(ABC):
    """Names and bytes below one location; it need not exist yet.

    Attributes:
        location: Absolute path or URI.

    Raises:
        CommitError: From everything that writes.
        StorageError: From everything that reads an object store.
    """

    location: str

    def _write_record(self, name: str, record: dict[str, Any]) -> None:
        # The configuration is what the user has written, is checked for secrets, and is read again.
        shown = {
            key: value if key == "config" else redacted_values(value)
            for key, value in record.items()
        }
        self._replace(name, json.dumps(shown, indent=1).encode())

    def _read_record(self, name: str) -> dict[str, Any] | None:
        """Return a record, or None where it is absent or damaged: each can be written again."""
        try:
            record = json.loads(self._read(name) or b"null")
        except (ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None

    def _read_records(self, folder: str) -> list[dict[str, Any]]:
        names = sorted(name for name in self._list(folder) if name.endswith(".json"))
        records = (self._read_record(f"{folder}/{name}") for name in names)
        return [record for record in records if record is not None]

    @property
    def log_folder(self) -> str | None:
        """Where logs grow; None where no file can: each is in its machine's temporary folder."""
        return None

    @abstractmethod
    def _list(self, folder: str) -> dict[str, int]:
        """Return the names directly below a folder, with sizes in bytes; {} where it is absent."""

    @abstractmethod
    def _versions(self, folder: str) -> dict[str, str]:
        """Return for each name of such a listing what changes whenever the file does."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is no such file."""

    @abstractmethod
    def _create(self, name: str, content: bytes | memoryview, attempt: str) -> bool:
        """Write a file that does not exist in one atomic step; False where another attempt has."""

    @abstractmethod
    def _replace(self, name: str, content: bytes) -> None:
        """Write a file in one atomic step, over an old one if there is one."""

    @abstractmethod
    def _delete(self, names: Sequence[str]) -> None:
        """Delete files; absent ones do not matter."""

    @abstractmethod
    def _delete_folder(self, folder: str, last: Sequence[str]) -> None:
        """Delete a folder of ours with all that is in it, and some files after all others."""
