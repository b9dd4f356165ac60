"""An output folder in an object store.

A unit is serialised in memory and written by one request that the store carries out as a whole or
not at all, and only where the key is free (`If-None-Match: *`): the first of two writers wins, no
reader ever sees half a file, and no upload of several parts stays behind after a crash. A unit's
file is small; one request holds up to 5 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from typing_extensions import override

from rgpt_batch.errors import CommitError, CommitStateUnknown, ConfigError, StorageError
from rgpt_batch.output.store import Store
from rgpt_batch.storage import objects
from rgpt_batch.storage.uris import HUB_SCHEME, split_uri


class ObjectStore(Store):
    """Publishes by conditional requests; see the module.

    Raises:
        ConfigError: The URI cannot be used as an output folder.
    """

    def __init__(self, output: str) -> None:
        root, key = split_uri(output)
        if root.startswith(f"{HUB_SCHEME}://"):
            raise ConfigError(f"{output}: {HUB_SCHEME}:// can be read only. Use another output.")
        if not key:
            raise ConfigError(f"{output}: the output is a whole bucket. Name a folder in it.")
        self.location = f"{root}/{key}"

    @override
    def _list(self, folder: str) -> dict[str, int]:
        return objects.list_folder(self._uri(folder))

    @override
    def _versions(self, folder: str) -> dict[str, str]:
        return objects.list_versions(self._uri(folder))

    @override
    def _read(self, name: str) -> bytes | None:
        try:
            return objects.read(self._uri(name))
        except FileNotFoundError:
            return None

    @override
    def _create(self, name: str, content: bytes | memoryview, attempt: str) -> bool:
        with _commit_errors():
            return objects.create(self._uri(name), content, attempt)

    @override
    def _replace(self, name: str, content: bytes) -> None:
        with _commit_errors():
            objects.replace(self._uri(name), content)

    @override
    def _delete(self, names: Sequence[str]) -> None:
        with _commit_errors():
            objects.delete([self._uri(name) for name in names])

    @override
    def _delete_folder(self, folder: str, last: Sequence[str]) -> None:
        late = {self._uri(name) for name in last}
        with _commit_errors():
            found = objects.list_tree(self._uri(folder))
            objects.delete([uri for uri in found if uri not in late])
            objects.delete([uri for uri in found if uri in late])

    def _uri(self, name: str) -> str:
        return f"{self.location}/{name}".rstrip("/")


@contextmanager
def _commit_errors() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        kind = CommitStateUnknown if error.is_transient else CommitError
        raise kind(f"cannot write {error}") from error
    except FileNotFoundError as error:
        # It was there a moment ago: somebody clears the folder.
        raise CommitError(
            f"cannot write {error.filename}: it was deleted at the same time. End other jobs that "
            "write there, then run the same command again."
        ) from error
